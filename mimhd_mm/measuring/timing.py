"""Time the parts of a training step, on a CPU or a GPU, for several models in turn."""
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from mmengine.optim import OptimWrapper
from torch import nn

#: the parts of a step, in order. 'decoder' is what the forward pass spends outside the three before it: views, decoder
#: and pixel loss.
SECTIONS = ('data', 'teacher', 'student', 'relations', 'decoder', 'backward', 'optimiser')
#: section -> part of the model and the method of it that is timed
WATCHED = {'teacher': ('target_generator', 'forward'), 'student': ('backbone', 'forward_relation'),
           'relations': ('head', 'loss')}


class Clock:
    """Time stamps: CUDA events on a GPU, so that the queue need not wait; otherwise ``perf_counter``."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == 'cuda'

    def mark(self):
        """A time stamp of now."""
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def wait(self) -> None:
        """Wait until all marks have been passed; call it before :meth:`between`."""
        if self.cuda:
            torch.cuda.synchronize()

    def between(self, start, end) -> float:
        """Seconds between two marks."""
        return start.elapsed_time(end) / 1000 if self.cuda else end - start


class Step:
    """A training step as mmengine's loop makes it, with time stamps between its parts.

    Without :meth:`watch`, all of the forward pass counts as 'decoder'.

    Args:
        model (nn.Module): A model with ``parse_losses``, on its device, in training mode.
        optim_wrapper (OptimWrapper): Of the model.
        batch (Callable): Gives the arguments of the model's forward: ``inputs`` and, maybe, ``data_samples``.
        device (torch.device): Where all of it is.
    """

    def __init__(self, model: nn.Module, optim_wrapper: OptimWrapper, batch: Callable[[], dict],
                 device: torch.device) -> None:
        self.model = model
        self.optim_wrapper = optim_wrapper
        self.batch = batch
        self.clock = Clock(device)
        self._spans: list[tuple] = []

    def watch(self) -> None:
        """Time the parts in :data:`WATCHED`, once and for all, by wrapping these methods of this one model.

        Compile methods before calling this: the timing wrapper cannot be compiled.
        """
        for section, (part, method) in WATCHED.items():
            self._watch(getattr(self.model, part), method, section)

    def _watch(self, module: nn.Module, method: str, section: str) -> None:
        inner = getattr(module, method)

        def watched(*args, **kwargs):
            with self._span(section):
                return inner(*args, **kwargs)

        setattr(module, method, watched)

    @contextmanager
    def _span(self, section: str) -> Iterator[None]:
        start = self.clock.mark()
        yield
        self._spans.append((section, start, self.clock.mark()))

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """What is in the wrapper."""
        return [self.optim_wrapper.optimizer]

    def losses(self, data: dict) -> torch.Tensor:
        """The loss of a batch, in the wrapper's precision."""
        with self.optim_wrapper.optim_context(self.model):
            return self.model.parse_losses(self.model(**data, mode='loss'))[0]

    def without_update(self, data: dict) -> None:
        """Forward and backward alone; gradients are thrown away."""
        self.losses(data).backward()
        self.model.zero_grad()

    def train(self, data: dict) -> None:
        """Forward, backward, update."""
        loss = self.losses(data)
        with self._span('backward'):
            self.optim_wrapper.backward(loss)
        with self._span('optimiser'):
            self.optim_wrapper.step()
            self.optim_wrapper.zero_grad()

    def __call__(self) -> dict[str, float]:
        """Train on one batch.

        Returns:
            dict: Seconds of each of :data:`SECTIONS`.
        """
        self._spans.clear()
        marks = [self.clock.mark()]
        data = self.batch()
        marks.append(self.clock.mark())
        self.train(data)
        marks.append(self.clock.mark())
        self.clock.wait()
        waited, trained = map(self.clock.between, marks, marks[1:])
        seconds = dict.fromkeys(SECTIONS, 0.)
        for section, start, end in self._spans:
            seconds[section] += self.clock.between(start, end)
        seconds.update(data=waited, decoder=trained - sum(seconds.values()))
        return seconds


class Quartiles(NamedTuple):
    """Lower quartile, median, upper quartile."""
    low: float
    median: float
    high: float


def quartiles(values: Sequence[float]) -> Quartiles:
    """Of one value or more."""
    if len(values) == 1:
        return Quartiles(*(values[0],) * 3)
    return Quartiles(*statistics.quantiles(values, n=4, method='inclusive'))
