"""``HeadRoutingHook``: records which teacher heads teach which student head, as pictures and numbers."""
import json
from pathlib import Path

from mmengine.runner import Runner
from torch import nn

from ...errors import UserInputError
from ...models.matchers import HeadMatcher
from ...registry import HOOKS
from ...visualization.routing import FILE_NAME, relation_name, routing_figure
from .drawing_hook import DrawingHook


@HOOKS.register_module()
class HeadRoutingHook(DrawingHook):
    """Record the head weights W of eq. 6 for each relation; warn if they carry little information.

    W is the mean over the images of the main process's last batch. Every reading becomes a line of
    ``vis_data/head_weights.json`` in the run's log folder and one heat map, the visualizer's image ``head_routing``.
    Readings are made after the first iteration, at the interval, and after the last iteration. Models without head
    matchers have none.

    A warning is given when a relation's weights become

    - uniform: their entropy (over ``log M1``) is above ``uniform_above``. Every student head then learns the teacher's
      mean head. A trained mini run has 0.68 (Q-K) and 0.35 (V-V), one that never leaves its start 1.00.
    - collapsed: their coverage is below ``collapsed_below`` of what one-to-one matching has, ``min(M2, M1) / M1``. Most
      student heads then learn from the same few teacher heads. Balanced weights have full coverage.
    - repeated: at most half of the student heads have a row of W of their own (``head_distinct``). The others learn
      the same and become copies. Entropy and coverage do not show this.
    - blurred: no student can remove more than ``blurred_above`` of the loss (``head_blur``), because the targets are
      mixtures of teacher heads.

    Args:
        interval (int): Iterations between two readings. Defaults to 500 (our choice).
        uniform_above (float): Entropy, in (0, 1]. Defaults to 0.98 (our choice).
        collapsed_below (float): Share of one-to-one matching's coverage, in [0, 1). Defaults to 0.5 (our choice).
        blurred_above (float): Share of the loss, in (0, 1]. Defaults to 0.5 (our choice).

    Raises:
        UserInputError: If the interval is not positive or a bound is out of range.
    """

    def __init__(self, interval: int = 500, uniform_above: float = 0.98, collapsed_below: float = 0.5,
                 blurred_above: float = 0.5) -> None:
        super().__init__(interval, by_epoch=False)
        if not 0 < uniform_above <= 1 or not 0 <= collapsed_below < 1 or not 0 < blurred_above <= 1:
            raise UserInputError(f'HeadRoutingHook: uniform_above and blurred_above are in (0, 1] and collapsed_below '
                                 f'in [0, 1), not {uniform_above!r}, {blurred_above!r} and {collapsed_below!r}.')
        self.uniform_above = uniform_above
        self.blurred_above = blurred_above
        self.collapsed_below = collapsed_below
        self.conditions: dict[tuple, str | None] = {}  # by student and pair

    def before_train(self, runner: Runner) -> None:
        """Prepare to read after the first iteration, unless the run was resumed."""
        super().before_train(runner)
        self.first = runner.iter == 0

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Read at the interval, at the start and at the end."""
        if self.first:
            self.first = False
            self.attempt(runner, 1)
        super().after_train_iter(runner, batch_idx, data_batch, outputs)

    def draw(self, runner: Runner, student: nn.Module, name: str, step: int) -> bool:
        """Record every relation's weights and draw them side by side."""
        weights = {}
        for pair, matcher in getattr(getattr(student, 'head', None), 'matchers', {}).items():
            if matcher.last_weight is None:
                continue
            weights[pair] = matcher.last_weight.double().mean(0).cpu().numpy()  # (M2, M1)
            reading = dict(iter=step, epoch=runner.epoch + 1, pair=pair, W=weights[pair].round(5).tolist(),
                           **figures_of(matcher))
            self._write(runner, dict(reading, student=name) if name else reading)
            if step > 1:
                self._judge(runner, reading, matcher, name)
        if not weights:
            return False
        title = f'Which teacher heads teach which head of {name or "the student"}, iteration {step}'
        return self.show(runner, 'head_routing', name, routing_figure(weights, title), step)

    def _write(self, runner: Runner, reading: dict) -> None:
        folder = Path(runner.log_dir) / 'vis_data'
        folder.mkdir(parents=True, exist_ok=True)
        line = json.dumps(reading, default=float)
        with open(folder / FILE_NAME, 'a') as file:
            file.write(line + '\n')

    def _judge(self, runner: Runner, reading: dict, matcher: HeadMatcher, name: str) -> None:
        """Warn once each time the weights become uniform, collapsed, repeated or blurred."""
        students, teachers = len(reading['W']), len(reading['W'][0])
        bound = self.collapsed_below * min(students, teachers) / teachers
        condition = None
        if teachers > 1 and reading['entropy'] > self.uniform_above:
            condition = (f'uniform (entropy {reading["entropy"]:.3f}, above {self.uniform_above:g}): every student '
                         f'head learns the mean of all teacher heads; see descriptor and temperature of '
                         f'{type(matcher).__name__}')
        elif reading['coverage'] < bound:
            condition = (f'collapsed (coverage {reading["coverage"]:.3f}, below {bound:.3g}): most student heads learn '
                         f'from the same few teacher heads; see balance of {type(matcher).__name__}')
        elif reading['distinct'] <= students / 2:
            condition = (f'repeated: {students} student heads have {reading["distinct"]:.0f} different rows, so that '
                         f'several learn the same; see embeddings and temperature of {type(matcher).__name__}')
        elif reading['blur'] > self.blurred_above:
            condition = (f'blurred: {100 * reading["blur"]:.0f} % of the loss can be removed by no student, because '
                         f'heads are asked for mixtures of teacher heads; see temperature and capacity of '
                         f'{type(matcher).__name__}, or use RegroupHeadMatcher')
        kind, key = condition and condition.split()[0].strip(':'), (name, reading['pair'])
        if condition and self.conditions.get(key) != kind:
            of = relation_name(reading['pair']) + (f' of {name}' if name else '')
            runner.logger.warning(f'Head weights of {of} at iteration {reading["iter"]} are {condition}.')
        self.conditions[key] = kind


def figures_of(matcher: HeadMatcher) -> dict[str, float]:
    """``entropy``, ``coverage``, ``spread``, ``distinct`` and ``blur`` of a matcher's last batch, rounded."""
    return {name.replace('head_', '', 1): round(float(value), 5) for name, value in matcher.diagnostics().items()}
