"""Optimiser wrappers and constructors."""
from .cpu_amp_optim_wrapper import CPUAmpOptimWrapper
from .layer_decay_constructor import BackboneLayerDecayConstructor

__all__ = ['BackboneLayerDecayConstructor', 'CPUAmpOptimWrapper']
