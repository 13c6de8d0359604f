"""Backbones."""
from .relation_vit import RelationViT

__all__ = ['RelationViT']
