"""``FusedAdamW``: AdamW with torch's fused kernel on devices that have one."""
import torch

from ...registry import OPTIMIZERS


@OPTIMIZERS.register_module()
class FusedAdamW(torch.optim.AdamW):
    """torch's AdamW with ``fused=True`` where torch supports it (GPUs, CPUs since torch 2.4), plain AdamW elsewhere.

    The pre-training schedules use it (our choice; docs/performance.md). ``optim_wrapper.optimizer.type='AdamW'``
    selects torch's own. Steps agree with AdamW's to rounding. A resumed run keeps the kind of its checkpoint, fused or
    plain, so that it stays bit-identical; fused becomes plain if the kernel is missing.

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
        """Load the state, then tell torch's loss scaler whether the loaded groups use the fused kernel."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            if group['fused'] and not self.has_kernel:
                group['fused'] = None
        self._step_supports_amp_scaling = all(group['fused'] for group in self.param_groups)


def has_fused_adamw(device: str) -> bool:
    """Whether torch has the fused kernel for a type of device, found by trying a step."""
    number = torch.zeros(1, device=device, requires_grad=True)
    number.grad = torch.zeros_like(number)
    try:
        torch.optim.AdamW([number], fused=True).step()
    except RuntimeError:
        return False
    return True
