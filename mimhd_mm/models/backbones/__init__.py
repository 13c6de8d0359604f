"""Backbones."""
from .rel_pos_vit import RelPosViT
from .relation_vit import RelationViT

__all__ = ['RelPosViT', 'RelationViT']
