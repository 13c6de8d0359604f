"""Heads."""
from .mae_pixel_head import MAEPixelHead
from .relation_distill_head import RelationDistillHead

__all__ = ['MAEPixelHead', 'RelationDistillHead']
