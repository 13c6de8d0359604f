"""Hooks, optimiser wrappers and what turns a command line into a Runner."""
from .hooks import HeadWeightHook, KNNProbeHook, TeacherFileHook
from .optimizers import CPUAmpOptimWrapper

__all__ = ['CPUAmpOptimWrapper', 'HeadWeightHook', 'KNNProbeHook', 'TeacherFileHook']
