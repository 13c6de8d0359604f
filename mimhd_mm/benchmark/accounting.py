"""Count what a computation costs: memory, FLOPs, and how fast its matmuls could be."""
import statistics
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Dict, Iterator, NamedTuple, Tuple

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import FlopCounterMode

from .timing import Clock

aten = torch.ops.aten
#: operator -> where its two matrices stand among its arguments
MATMULS = {aten.mm.default: 0, aten.bmm.default: 0, aten.addmm.default: 1, aten.baddbmm.default: 1}


class Matmul(NamedTuple):
    """The shapes (.., m, k) and (.., k, n) of one product, and its type."""
    first: Tuple[int, ...]
    second: Tuple[int, ...]
    dtype: torch.dtype

    @property
    def flops(self) -> int:
        """Two for each multiplication and addition."""
        return 2 * torch.Size(self.first).numel() * self.second[-1]


class Accountant(TorchDispatchMode):
    """Watches every operator, backward passes too: matmuls, and bytes of the tensors that are alive.

    Only storages that an operator returned while this mode was on are counted; what an operator takes for itself while
    it runs, and allocators' rounding, are not. So it is a lower bound, the same on every run and every device.

    Attributes:
        matmuls (Counter): How often each :class:`Matmul` was computed.
        peak_bytes (int): The most that was alive at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.matmuls: Counter = Counter()
        self.peak_bytes = self._bytes = 0
        self._alive: Dict[int, Tuple[StorageWeakRef, int]] = {}  # Python's own weak references crash in torch 2.1

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run the operator and take down what it returns."""
        given = {x.untyped_storage()._cdata for x in tree_flatten((args, kwargs or {}))[0] if isinstance(x, Tensor)}
        result = func(*args, **(kwargs or {}))
        for x in tree_flatten(result)[0]:
            if isinstance(x, Tensor) and x.untyped_storage()._cdata not in given:
                self._watch(x.untyped_storage())
        if func in MATMULS:
            first, second = args[MATMULS[func]:MATMULS[func] + 2]
            self.matmuls[Matmul(tuple(first.shape), tuple(second.shape), first.dtype)] += 1
        return result

    def _watch(self, storage: torch.UntypedStorage) -> None:
        number = storage._cdata  # no other storage gets it while there is a weak reference
        if number in self._alive:
            return
        self._alive[number] = StorageWeakRef(storage), storage.nbytes()
        self._bytes += storage.nbytes()
        if self._bytes > self.peak_bytes:  # with those that are gone since: look only when it matters
            self._alive = {key: kept for key, kept in self._alive.items() if not kept[0].expired()}
            self._bytes = sum(size for _, size in self._alive.values())
            self.peak_bytes = max(self.peak_bytes, self._bytes)


def peak_bytes(compute: Callable[[], object], device: torch.device) -> int:
    """Memory that calling ``compute`` takes at most on top of what is there before.

    On a GPU the allocator says so; on a CPU it is :class:`Accountant`'s lower bound.
    """
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        compute()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with Accountant() as accountant:
        compute()
    return accountant.peak_bytes


def state_bytes(model: nn.Module, *optimizers: torch.optim.Optimizer) -> int:
    """Memory of weights, buffers and what the optimisers keep."""
    states = [list(optimizer.state.values()) for optimizer in optimizers]
    tensors = [*model.parameters(), *model.buffers(), *tree_flatten(states)[0]]
    return sum(x.numel() * x.element_size() for x in tensors if isinstance(x, Tensor))


def available_bytes(device: torch.device) -> int:
    """Memory that is free for tensors."""
    if device.type == 'cuda':
        return torch.cuda.mem_get_info(device)[0]
    info = Path('/proc/meminfo')
    lines = info.read_text().splitlines() if info.is_file() else []
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith('MemAvailable:')]
    return found[0] if found else 4 * 2 ** 30  # elsewhere 4 GiB: our choice


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


def matmul_rate(matmuls: Counter, device: torch.device, known: Dict[Matmul, float], coverage: float = 0.9) -> float:
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
