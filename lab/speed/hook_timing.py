"""How much of a training's time its hooks take: ``HookTimingRunner``, and the rows of a table."""
import functools
import time
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import RUNNERS as MMENGINE_RUNNERS

from mimhd_mm.engine.hooks import HeadWeightHook, KNNProbeHook
from mimhd_mm.engine.hooks.drawing_hook import DrawingHook
from mimhd_mm.engine.multi_student_runner import MultiStudentRunner
from mimhd_mm.engine.resume.runner import ResumableRunner
from mimhd_mm.errors import UserInputError
from mimhd_mm.registry import RUNNERS

#: kinds of hooks that training does not need -> their classes
KINDS: dict[str, tuple] = {'draws': (DrawingHook, HeadWeightHook), 'probes': (KNNProbeHook, )}


class Taken(NamedTuple):
    """What a hook took of a training.

    Attributes:
        name (str): Its class.
        seconds (float): Its own, without those of hooks that it called (a checkpoint's, for one).
        calls (int): Of the moments at which it does something.
        kind (str): Of :data:`KINDS`, or empty.
    """
    name: str
    seconds: float
    calls: int
    kind: str


@RUNNERS.register_module()
class HookTimingRunner(MultiStudentRunner):
    """A ``ResumableRunner``, or ``MultiStudentRunner``, that looks at the clock before and after every call of a hook.

    It trains to the same bits. Once CUDA is in use, the clock is read when the device is idle, so that what a hook left
    there is its own and what training left there is not; training itself is a little slower for it. Arguments are the
    parent's.

    Attributes:
        training_seconds (float): From ``before_train`` to the end of ``after_train``; 0 before that.
    """

    def __init__(self, *args, **kwargs) -> None:
        self._taken: dict[int, list[float]] = {}  # by hook: seconds, calls
        self._inner: list[float] = []  # of the calls that are under way, seconds of hooks called from there
        self._began: float | None = None
        self.training_seconds = 0.
        super().__init__(*args, **kwargs)

    def call_hook(self, fn_name: str, **kwargs) -> None:
        """As mmengine's, for all hooks in order, between two looks at the clock each."""
        if fn_name == 'before_train':
            self._began = now()
        for hook in self.hooks:
            if hasattr(hook, fn_name):
                self._call(hook, fn_name, kwargs)
        if fn_name == 'after_train':
            self.training_seconds = now() - self._began
            self._began = None

    def _call(self, hook: Hook, fn_name: str, kwargs: dict) -> None:
        if self._began is None or not acts(type(hook), fn_name):
            getattr(hook, fn_name)(self, **kwargs)
            return
        self._inner.append(0.)
        start = now()
        try:
            getattr(hook, fn_name)(self, **kwargs)
        finally:
            seconds = now() - start
            taken = self._taken.setdefault(id(hook), [0., 0])
            taken[0] += seconds - self._inner.pop()
            taken[1] += 1
            if self._inner:
                self._inner[-1] += seconds

    def taken(self) -> list[Taken]:
        """What each hook took, the largest first."""
        found = [Taken(type(hook).__name__, *self._taken.get(id(hook), (0., 0)), kind_of(hook)) for hook in self.hooks]
        return sorted(found, key=lambda one: one.seconds, reverse=True)


def kind_of(hook: Hook) -> str:
    """What a hook is there for, of :data:`KINDS`; empty where training needs it."""
    return next((kind for kind, classes in KINDS.items() if isinstance(hook, classes)), '')


def now() -> float:
    """Seconds, when what was asked of a GPU has been done."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


@functools.cache
def acts(kind: type[Hook], fn_name: str) -> bool:
    """Whether hooks of a kind do anything there; mmengine's base class has a method for each moment."""
    return fn_name not in Hook.stages or fn_name in kind.get_triggered_stages(kind)


def time_hooks(cfg: Config) -> None:
    """Let a config's training be run by :class:`HookTimingRunner`.

    Raises:
        UserInputError: If the config names a Runner of another kind.
    """
    name = cfg.get('runner_type', 'mimhd_mm.ResumableRunner')
    if MMENGINE_RUNNERS.get(name) not in (ResumableRunner, MultiStudentRunner):
        raise UserInputError(f'Hooks are timed in a ResumableRunner or a MultiStudentRunner, and the config has '
                             f'runner_type={name!r}; give --cfg-options runner_type=mimhd_mm.ResumableRunner.')
    cfg.runner_type = 'mimhd_mm.HookTimingRunner'


def table_rows(runner: HookTimingRunner) -> list[dict]:
    """A row a hook that acted, then sums: of hooks that draw, of those that draw or probe, and of all."""
    taken, total = runner.taken(), runner.training_seconds
    sums = {'**those that draw**': [one for one in taken if one.kind == 'draws'],
            '**those that draw or probe**': [one for one in taken if one.kind], '**all hooks**': taken}
    rows = [(one.name, one.seconds, one.calls) for one in taken if one.calls]
    rows += [(name, sum(one.seconds for one in part), sum(one.calls for one in part)) for name, part in sums.items()]
    return [{'hook': name, 'seconds': seconds, 'calls': calls, 'percent of training': 100 * seconds / total}
            for name, seconds, calls in rows]
