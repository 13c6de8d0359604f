"""Hooks, optimiser wrappers and what turns a command line into a Runner."""
from .hooks import HeadWeightHook, KNNProbeHook, TeacherFileHook
from .optimizers import BackboneLayerDecayConstructor, CPUAmpOptimWrapper

__all__ = ['BackboneLayerDecayConstructor', 'CPUAmpOptimWrapper', 'HeadWeightHook', 'KNNProbeHook', 'TeacherFileHook']
