"""Datasets and transforms."""
from .student_color_jitter import StudentColorJitter
from .tiny_imagenet import TinyImageNet

__all__ = ['StudentColorJitter', 'TinyImageNet']
