"""Datasets and transforms."""
from .load_and_crop import LoadAndCrop
from .packed_images import PackedImages
from .student_color_jitter import StudentColorJitter
from .tiny_imagenet import TinyImageNet

__all__ = ['LoadAndCrop', 'PackedImages', 'StudentColorJitter', 'TinyImageNet']
