"""Models. Layers, from the bottom: relation, views; backbones, necks, losses, matchers; heads, target generators;
algorithms. Imports only go down."""
from .backbones import RelPosViT, RelationViT
from .heads import MAEPixelHead, RelationDistillHead
from .losses import RelationDistillLoss
from .matchers import AttentionHeadMatcher, AverageHeadMatcher, HeadMatcher, OneToOneHeadMatcher, SelectHeadMatcher
from .necks import DualViewMAEDecoder
from .selfsup import MIMHD, TinyMIM
from .target_generators import MAETeacher

__all__ = [
    'AttentionHeadMatcher', 'AverageHeadMatcher', 'DualViewMAEDecoder', 'HeadMatcher', 'MAEPixelHead', 'MAETeacher',
    'MIMHD', 'OneToOneHeadMatcher', 'RelPosViT', 'RelationDistillHead', 'RelationDistillLoss', 'RelationViT',
    'SelectHeadMatcher', 'TinyMIM',
]
