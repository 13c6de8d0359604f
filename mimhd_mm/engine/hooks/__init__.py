"""Hooks."""
from .head_weight_hook import HeadWeightHook
from .knn_probe_hook import KNNProbeHook
from .teacher_file_hook import TeacherFileHook

__all__ = ['HeadWeightHook', 'KNNProbeHook', 'TeacherFileHook']
