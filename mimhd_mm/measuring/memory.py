"""Memory that a computation takes, and that a model and its optimisers keep."""
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


class MemoryWatch(TorchDispatchMode):
    """Watches every operator, backward passes too, for the bytes of the tensors that are alive.

    Only storages that an operator returned while this mode was on are counted; what an operator takes for itself while
    it runs, and allocators' rounding, are not. So it is a lower bound, the same on every run and every device.

    Attributes:
        peak_bytes (int): The most that was alive at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak_bytes = self._bytes = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}  # Python's own weak references crash in torch 2.1

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run the operator and take down what it returns."""
        given = {x.untyped_storage()._cdata for x in tree_flatten((args, kwargs or {}))[0] if isinstance(x, Tensor)}
        result = func(*args, **(kwargs or {}))
        for x in tree_flatten(result)[0]:
            if isinstance(x, Tensor) and x.untyped_storage()._cdata not in given:
                self._watch(x.untyped_storage())
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

    On a GPU the allocator says so; on a CPU it is :class:`MemoryWatch`'s lower bound.
    """
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        compute()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with MemoryWatch() as watch:
        compute()
    return watch.peak_bytes


def state_bytes(model: nn.Module, *optimizers: torch.optim.Optimizer) -> int:
    """Memory of weights, buffers and what the optimisers keep."""
    states = [list(optimizer.state.values()) for optimizer in optimizers]
    tensors = [*model.parameters(), *model.buffers(), *tree_flatten(states)[0]]
    return sum(x.numel() * x.element_size() for x in tensors if isinstance(x, Tensor))
