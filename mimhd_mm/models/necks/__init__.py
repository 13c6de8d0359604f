"""Necks."""
from .dual_view_decoder import DualViewMAEDecoder

__all__ = ['DualViewMAEDecoder']
