"""Losses."""
from .relation_loss import RelationDistillLoss

__all__ = ['RelationDistillLoss']
