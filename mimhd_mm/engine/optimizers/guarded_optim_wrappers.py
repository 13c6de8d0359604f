"""Optimiser wrappers that skip a step if the loss or a gradient is not finite."""
import math

import torch
from mmengine.dist import all_reduce
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import Tensor

from ...registry import OPTIM_WRAPPERS
from .cpu_amp_optim_wrapper import CPUAmpOptimWrapper


class SkipNonFinite:
    """Mixin that skips non-finite steps. List it before mmengine's wrapper among the bases of a class.

    Before a step changes weights or moments, the norm of all gradients is checked. If it is not finite, gradients are
    dropped and the skip is counted; learning rates and counters advance as usual.

    A non-finite loss is turned into NaN gradients. The reduction of gradients spreads them to all processes, which
    therefore take the same decision without further messages. With gradient accumulation one bad batch skips the whole
    step. The check waits for the device once a step; where gradients are clipped, mmengine waits anyway.

    Attributes:
        skipped (int): Steps skipped since the start of this process.
        skipped_in_a_row (int): Steps skipped since the last step that was made.
        just_skipped (bool): Whether the last call of ``update_params`` skipped a step.
    """

    NORM = 2.

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.skipped = self.skipped_in_a_row = 0
        self.just_skipped = False
        self._loss_is_finite: Tensor | None = None

    def update_params(self, loss: Tensor, *args, **kwargs) -> None:
        """Run the backward pass, and a step if one is due and everything is finite."""
        finite = torch.isfinite(loss.detach())  # (), stays on the device
        self._loss_is_finite = finite if self._loss_is_finite is None else self._loss_is_finite & finite
        self.just_skipped = False
        super().update_params(loss * torch.where(finite, 1., math.nan), *args, **kwargs)

    def step(self, **kwargs) -> None:
        """Make a step, or count a skip."""
        loss_is_finite, self._loss_is_finite = self._loss_is_finite, None
        if math.isfinite(self.gradient_norm()):
            self.skipped_in_a_row = 0
        elif not self.searches_scale(loss_is_finite):
            self.skipped += 1
            self.skipped_in_a_row += 1
            self.just_skipped = True
            return
        super().step(**kwargs)

    def gradient_norm(self) -> float:
        """Norm of all gradients, the same in every process."""
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group['params']]
        # an infinite bound leaves gradients unchanged
        return float(torch.nn.utils.clip_grad_norm_(parameters, math.inf, norm_type=self.NORM))

    def searches_scale(self, loss_is_finite: Tensor | None) -> bool:
        """Whether non-finite gradients come from a loss scale that is still too large."""
        return False


@OPTIM_WRAPPERS.register_module()
class GuardedOptimWrapper(SkipNonFinite, OptimWrapper):
    """mmengine's ``OptimWrapper`` that skips steps which are not finite; arguments are the parent's."""


@OPTIM_WRAPPERS.register_module()
class GuardedCPUAmpOptimWrapper(SkipNonFinite, CPUAmpOptimWrapper):
    """``CPUAmpOptimWrapper`` that skips steps which are not finite; arguments are the parent's."""


@OPTIM_WRAPPERS.register_module()
class GuardedAmpOptimWrapper(SkipNonFinite, AmpOptimWrapper):
    """mmengine's ``AmpOptimWrapper`` that skips steps which are not finite; arguments are the parent's.

    While ``loss_scale='dynamic'`` searches its scale, gradients may overflow; the scaler then skips the step and halves
    the scale. This is not counted as long as every process has a finite loss and the scale is above 1. A non-finite
    loss does not change the scale.
    """

    NORM = math.inf  # maximum norm: the sum of squares of finite scaled gradients may overflow

    def searches_scale(self, loss_is_finite: Tensor | None) -> bool:
        """Whether the scaler handles the overflow. Every process calls this with the same gradients."""
        if not self.loss_scaler.is_enabled() or self.loss_scaler.get_scale() <= 1:
            return False
        if loss_is_finite is None:  # backward was called without update_params
            return True
        everywhere = loss_is_finite.float()  # ()
        all_reduce(everywhere, 'min')
        return bool(everywhere)
