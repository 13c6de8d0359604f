"""Models. Layers, from the bottom: relation, views; backbones, necks, losses, matchers, data preprocessors; heads,
target generators; algorithms. Imports only go down."""
from .backbones import RelationViT, RelPosViT, TappedMAEViT
from .data_preprocessors import DeviceAugmentation
from .heads import MAEPixelHead, RelationDistillHead
from .losses import RelationDistillLoss
from .matchers import (
                       AttentionHeadMatcher,
                       AverageHeadMatcher,
                       ExplainHeadMatcher,
                       HeadMatcher,
                       LiteralHeadMatcher,
                       OneToOneHeadMatcher,
                       RegroupHeadMatcher,
                       SelectHeadMatcher,
)
from .necks import DualViewMAEDecoder
from .selfsup import DMAE, MIMHD, MultiStudent, RelationBlock, RelationDistiller, TinyMIM
from .target_generators import CachedTeacher, MAETeacher, MaskedMAETeacher

__all__ = [
    'AttentionHeadMatcher', 'AverageHeadMatcher', 'CachedTeacher', 'DMAE', 'DeviceAugmentation',
    'DualViewMAEDecoder', 'ExplainHeadMatcher', 'HeadMatcher', 'LiteralHeadMatcher', 'MAEPixelHead', 'MAETeacher',
    'MIMHD', 'MaskedMAETeacher', 'MultiStudent', 'OneToOneHeadMatcher', 'RegroupHeadMatcher', 'RelPosViT',
    'RelationBlock', 'RelationDistillHead', 'RelationDistillLoss', 'RelationDistiller', 'RelationViT',
    'SelectHeadMatcher', 'TappedMAEViT', 'TinyMIM',
]
