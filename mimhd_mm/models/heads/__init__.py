"""Heads."""
from .relation_distill_head import RelationDistillHead

__all__ = ['RelationDistillHead']
