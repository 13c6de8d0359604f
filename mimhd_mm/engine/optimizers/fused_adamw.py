"""``FusedAdamW``: AdamW whose update is one kernel, on the devices for which this torch has it."""
import torch

from ...registry import OPTIMIZERS


@OPTIMIZERS.register_module()
class FusedAdamW(torch.optim.AdamW):
    """torch's AdamW with ``fused=True`` where torch supports it: GPUs, and CPUs since torch 2.4; elsewhere plain AdamW.

    The pre-training schedules' optimiser (our choice; docs/performance.md), ``optim_wrapper.optimizer.type='AdamW'`` is
    torch's own. Steps agree with AdamW's to rounding. A run that is resumed keeps what its checkpoint was made with,
    fused or not, so that it goes on to the same bits; fused becomes plain where the kernel is missing.

    Args:
        params (Iterable): Parameters, or groups of them; their ``params`` are lists.
        **kwargs: Of :class:`torch.optim.AdamW`, but ``fused``.
    """

    def __init__(self, params, **kwargs) -> None:
        params = list(params)
        tensors = [tensor for one in params for tensor in (one['params'] if isinstance(one, dict) else [one])]
        self.has_kernel = all(has_fused_adamw(device) for device in {tensor.device.type for tensor in tensors})
        super().__init__(params, fused=self.has_kernel or None, **kwargs)

    def load_state_dict(self, state_dict: dict) -> None:
        """As the parent; what torch's loss scaler is told of this optimiser follows the state that was loaded."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            if group['fused'] and not self.has_kernel:
                group['fused'] = None
        self._step_supports_amp_scaling = all(group['fused'] for group in self.param_groups)


def has_fused_adamw(device: str) -> bool:
    """Whether this torch has the kernel for a type of device; a step tells, older versions refuse before it."""
    number = torch.zeros(1, device=device, requires_grad=True)
    number.grad = torch.zeros_like(number)
    try:
        torch.optim.AdamW([number], fused=True).step()
    except RuntimeError:
        return False
    return True
