"""Optimiser wrappers and constructors."""
from .cpu_amp_optim_wrapper import CPUAmpOptimWrapper
from .fused_adamw import FusedAdamW
from .guarded_optim_wrappers import (
                                     GuardedAmpOptimWrapper,
                                     GuardedCPUAmpOptimWrapper,
                                     GuardedOptimWrapper,
                                     SkipNonFinite,
)
from .layer_decay_constructor import BackboneLayerDecayConstructor
from .student_optim_wrappers import StudentOptimWrapperConstructor

__all__ = ['BackboneLayerDecayConstructor', 'CPUAmpOptimWrapper', 'FusedAdamW', 'GuardedAmpOptimWrapper',
           'GuardedCPUAmpOptimWrapper', 'GuardedOptimWrapper', 'SkipNonFinite', 'StudentOptimWrapperConstructor']
