"""Algorithms."""
from .mimhd import MIMHD, Reconstruction

__all__ = ['MIMHD', 'Reconstruction']
