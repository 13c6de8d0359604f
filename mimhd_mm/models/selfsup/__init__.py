"""Algorithms."""
from .dmae import DMAE
from .mimhd import MIMHD
from .tinymim import TinyMIM

__all__ = ['DMAE', 'MIMHD', 'TinyMIM']
