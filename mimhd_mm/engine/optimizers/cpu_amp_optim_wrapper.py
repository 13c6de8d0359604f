"""bf16 mixed precision on a CPU, which mmengine's ``AmpOptimWrapper`` refuses."""
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from ...registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Run the forward pass under ``torch.autocast('cpu', bfloat16)``; no loss scaling, bf16 needs none.

    Whether it is faster than float32 depends on the CPU (AMX or AVX512-BF16) and on the width of the model. Arguments
    are the parent's.
    """

    @contextmanager
    def optim_context(self, model: nn.Module):
        """Autocast on top of the parent's gradient accumulation."""
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
            yield
