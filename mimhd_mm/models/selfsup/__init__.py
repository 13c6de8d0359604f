"""Algorithms."""
from .mimhd import MIMHD
from .tinymim import TinyMIM

__all__ = ['MIMHD', 'TinyMIM']
