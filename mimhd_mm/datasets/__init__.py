"""Datasets and transforms."""
from .fixed_views import FixedViews
from .load_and_crop import LoadAndCrop
from .load_any_image import LoadAnyImage
from .packed_images import PackedImages
from .seeded_samples import PositionedSampler, SeededDataset
from .student_color_jitter import StudentColorJitter
from .tiny_imagenet import TinyImageNet

__all__ = ['FixedViews', 'LoadAndCrop', 'LoadAnyImage', 'PackedImages', 'PositionedSampler', 'SeededDataset',
           'StudentColorJitter', 'TinyImageNet']
