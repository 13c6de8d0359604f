"""Look at a model in the middle of a training run without leaving a trace: modes and random states."""
import random
from contextlib import contextmanager
from typing import Iterator

import numpy as np
import torch
from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; every submodule gets its own mode back afterwards.

    Args:
        module (nn.Module): Some of its parts may be in training mode and others, a frozen teacher, not.
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
    """Give Python's, numpy's and torch's random states (CPU and this process's GPU) back as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
