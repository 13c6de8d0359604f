"""Context managers that restore modes and random states, so that an evaluation does not change a training run."""
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode without gradients; restore the mode of every submodule afterwards.

    Args:
        module (nn.Module): Its parts may have different modes; a frozen teacher is always in evaluation mode.
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def kept_random_states() -> Iterator[None]:
    """Restore the random states of Python, numpy and torch (CPU and this process's GPU) afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
