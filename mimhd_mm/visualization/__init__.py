"""Pictures of what a model does."""
from .curves import curves_figure, read_scalars
from .pictures import attention_figure, draw_attention, draw_reconstructions, reconstruction_figure
from .routing import history_figure, read_head_weights, routing_figure

__all__ = ['attention_figure', 'curves_figure', 'draw_attention', 'draw_reconstructions', 'history_figure',
           'read_head_weights', 'read_scalars', 'reconstruction_figure', 'routing_figure']
