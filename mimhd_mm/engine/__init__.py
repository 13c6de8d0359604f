"""Hooks, optimiser wrappers and what turns a command line into a Runner."""
from .optimizers import CPUAmpOptimWrapper

__all__ = ['CPUAmpOptimWrapper']
