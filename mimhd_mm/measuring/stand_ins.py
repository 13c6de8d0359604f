"""Random weights, random images and an optimiser for measurements of time and memory."""
import copy
import logging

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import nn

from ..engine.loading import image_size


def fill_randomly(model: nn.Module) -> None:
    """Stand in for ``init_weights`` and the files it reads: normal weights, standard deviation 0.02, norms and biases
    as they were built. How long a step takes does not depend on their values."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.02)


def build_optimiser(cfg: Config, model: nn.Module, device: torch.device, dtype: str) -> OptimWrapper:
    """The config's optimiser, in one of :data:`DTYPES` or float16, by the wrapper that this needs on ``device``."""
    MMLogger.get_instance('benchmark', log_level='ERROR').setLevel(logging.ERROR)  # it lists every parameter otherwise
    settings = {key: value for key, value in copy.deepcopy(cfg.optim_wrapper.to_dict()).items()
                if key not in ('type', 'dtype', 'loss_scale', 'accumulative_counts')}
    if dtype == 'float32':
        settings['type'] = 'OptimWrapper'
    elif device.type == 'cuda':
        settings.update(type='AmpOptimWrapper', dtype=dtype, loss_scale='dynamic')
    else:
        settings['type'] = 'mimhd_mm.CPUAmpOptimWrapper'
    return build_optim_wrapper(model, settings)


def random_images(cfg: Config, batch_size: int, device: torch.device) -> torch.Tensor:
    """Normal noise of the config's size, (B, 3, H, W)."""
    return torch.randn(batch_size, 3, *image_size(cfg), device=device)
