"""Backbones."""
from .rel_pos_vit import RelPosViT
from .relation_vit import RelationViT
from .tapped_mae_vit import TappedMAEViT

__all__ = ['RelPosViT', 'RelationViT', 'TappedMAEViT']
