"""Algorithms."""
from .dmae import DMAE
from .mimhd import MIMHD
from .multi_student import MultiStudent, students_of
from .tinymim import TinyMIM

__all__ = ['DMAE', 'MIMHD', 'MultiStudent', 'TinyMIM', 'students_of']
