"""Pictures of what a model does."""
from .pictures import draw_attention, draw_reconstructions

__all__ = ['draw_attention', 'draw_reconstructions']
