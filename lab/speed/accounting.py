"""Count what a computation costs: matmuls, FLOPs, and how fast its matmuls could be."""
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from mimhd_mm.measuring.memory import MemoryWatch
from mimhd_mm.measuring.timing import Clock

aten = torch.ops.aten
#: operator -> where its two matrices stand among its arguments
MATMULS = {aten.mm.default: 0, aten.bmm.default: 0, aten.addmm.default: 1, aten.baddbmm.default: 1}


class Matmul(NamedTuple):
    """The shapes (.., m, k) and (.., k, n) of one product, and its type."""
    first: tuple[int, ...]
    second: tuple[int, ...]
    dtype: torch.dtype

    @property
    def flops(self) -> int:
        """Two for each multiplication and addition."""
        return 2 * torch.Size(self.first).numel() * self.second[-1]


class Accountant(MemoryWatch):
    """Counts the matmuls of all operators, backward passes too, beside the memory that they take.

    Attributes:
        matmuls (Counter): How often each :class:`Matmul` was computed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.matmuls: Counter = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run the operator and take down what it returns and, of a matmul, its shapes."""
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if func in MATMULS:
            first, second = args[MATMULS[func]:MATMULS[func] + 2]
            self.matmuls[Matmul(tuple(first.shape), tuple(second.shape), first.dtype)] += 1
        return result


@contextmanager
def plain_attention() -> Iterator[None]:
    """Without fused attention, whose CPU kernel the FLOP counter does not know and whose backward pass recomputes."""
    switches = [(torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp),
                (torch.backends.cuda.mem_efficient_sdp_enabled, torch.backends.cuda.enable_mem_efficient_sdp)]
    if hasattr(torch.backends.cuda, 'enable_cudnn_sdp'):
        switches.append((torch.backends.cuda.cudnn_sdp_enabled, torch.backends.cuda.enable_cudnn_sdp))
    before = [enabled() for enabled, _ in switches]
    try:
        for _, enable in switches:
            enable(False)
        yield
    finally:
        for (_, enable), was in zip(switches, before):
            enable(was)


def count_flops(compute: Callable[[], object]) -> int:
    """Floating point operations of the matmuls and convolutions in ``compute``, by ``torch.utils.flop_counter``."""
    with plain_attention(), FlopCounterMode(display=False) as counter:
        compute()
    return counter.get_total_flops()


def matmul_rate(matmuls: Counter, device: torch.device, known: dict[Matmul, float], coverage: float = 0.9) -> float:
    """FLOP/s of a step's own matmuls, each alone and on contiguous random matrices: what the step cannot exceed.

    Args:
        matmuls (Counter): How often the step computes each :class:`Matmul`.
        device (torch.device): Where.
        known (dict): Seconds of those measured already; added to.
        coverage (float): Share of the FLOPs to measure, largest shapes first. Defaults to 0.9 (our choice).

    Returns:
        float: 0 where there is no matmul.
    """
    work = {matmul: matmul.flops * count for matmul, count in matmuls.items()}
    flops = seconds = 0.
    for matmul in sorted(work, key=work.get, reverse=True):
        if flops >= coverage * sum(work.values()):
            break
        if matmul not in known:
            known[matmul] = time_matmul(matmul, device)
        flops += work[matmul]
        seconds += matmuls[matmul] * known[matmul]
    return flops / seconds if seconds else 0.


def time_matmul(matmul: Matmul, device: torch.device, repeats: int = 3) -> float:
    """Median seconds of one product, of ``repeats`` groups of 10 on a GPU and single ones on a CPU."""
    first, second = (torch.randn(shape, device=device, dtype=matmul.dtype) for shape in matmul[:2])
    clock, group = Clock(device), 10 if device.type == 'cuda' else 1
    first @ second
    times = []
    for _ in range(repeats):
        start = clock.mark()
        for _ in range(group):
            first @ second
        end = clock.mark()
        clock.wait()
        times.append(clock.between(start, end) / group)
    return statistics.median(times)
