"""Hooks."""
from .knn_probe_hook import KNNProbeHook

__all__ = ['KNNProbeHook']
