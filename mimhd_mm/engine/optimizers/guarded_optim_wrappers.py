"""Optimiser wrappers that leave a step out where the loss or a gradient is not finite."""
import math
from typing import Optional

import torch
from mmengine.dist import all_reduce
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import Tensor

from ...registry import OPTIM_WRAPPERS
from .cpu_amp_optim_wrapper import CPUAmpOptimWrapper


class SkipNonFinite:
    """What the guarded wrappers share; comes before a wrapper of mmengine's among the bases of a class.

    Before weights and the optimiser's moments are touched, the norm of all gradients is looked at. If it is not finite,
    there is no step: gradients are dropped and the skip is counted. Learning rates and counters go on.

    A loss that is not finite makes its gradients NaN. So every process takes the same decision without a message of its
    own: what one of them has reaches all by the reduction of gradients, and with gradient accumulation one bad batch is
    enough for its whole step. Looking at the norm is one wait for the device a step; where gradients are clipped,
    mmengine waits there anyway.

    Attributes:
        skipped (int): Steps left out since the start of this process.
        skipped_in_a_row (int): Those since the last step that was taken.
        just_skipped (bool): Whether the last call of ``update_params`` left a step out.
    """

    NORM = 2.

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.skipped = self.skipped_in_a_row = 0
        self.just_skipped = False
        self._loss_is_finite: Optional[Tensor] = None

    def update_params(self, loss: Tensor, *args, **kwargs) -> None:
        """Backward, and a step where one is due and everything is finite."""
        finite = torch.isfinite(loss.detach())  # (), stays on the device
        self._loss_is_finite = finite if self._loss_is_finite is None else self._loss_is_finite & finite
        self.just_skipped = False
        super().update_params(loss * torch.where(finite, 1., math.nan), *args, **kwargs)

    def step(self, **kwargs) -> None:
        """Step, or count a skip."""
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
        # with an infinite bound it multiplies by 1
        return float(torch.nn.utils.clip_grad_norm_(parameters, math.inf, norm_type=self.NORM))

    def searches_scale(self, loss_is_finite: Optional[Tensor]) -> bool:
        """Whether gradients that are not finite come from a loss scale that is still to be lowered."""
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

    While ``loss_scale='dynamic'`` looks for its scale, gradients overflow, and the scaler leaves the step out and
    halves the scale. That is no fault and is not counted, as long as every process has a finite loss and the scale is
    above 1. For a loss that is not finite the scale stays as it is.
    """

    NORM = math.inf  # the largest value: scaled gradients may be finite and have a sum of squares that is not

    def searches_scale(self, loss_is_finite: Optional[Tensor]) -> bool:
        """Whether the scaler shall deal with it. Every process comes here with the same gradients."""
        if not self.loss_scaler.is_enabled() or self.loss_scaler.get_scale() <= 1:
            return False
        if loss_is_finite is None:  # backward was called without update_params
            return True
        everywhere = loss_is_finite.float()  # ()
        all_reduce(everywhere, 'min')
        return bool(everywhere)
