"""``DrawingHook``: base class of the hooks that draw. It chooses the moments and never disturbs training."""
import time

from matplotlib.figure import Figure
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from ...errors import UserInputError
from ...models.selfsup import students_of
from ...random_states import kept_random_states
from ...visualization.pictures import to_array
from ..unwrapped import unwrapped


class DrawingHook(Hook):
    """Draw before training, at an interval, and at the end, on the main process only.

    The hook does not change training: modes and random states are restored, and an error while drawing becomes a
    warning in the log. After training the time spent on pictures is logged.

    Args:
        interval (int): Epochs between two pictures; iterations where not ``by_epoch``. Defaults to 10.
        by_epoch (bool): False for training loops that count iterations, or for more pictures. Defaults to True.

    Raises:
        UserInputError: If the interval is not a positive whole number.
    """

    priority = 'LOW'  # after hooks that measure and log the same iteration

    def __init__(self, interval: int = 10, by_epoch: bool = True) -> None:
        if not isinstance(interval, int) or interval < 1:
            raise UserInputError(f'The interval of a {type(self).__name__} is a whole number of at least 1, not '
                                 f'{interval!r}; leave the hook out to draw nothing.')
        self.interval = interval
        self.by_epoch = by_epoch
        self.pictures, self.seconds, self.last_step = 0, 0., -1

    def prepare(self, runner: Runner) -> None:
        """Prepare; called once in every process before training.

        Raises:
            UserInputError: If the settings of the hook are wrong. The run then stops before training.
        """

    def draw(self, runner: Runner, student: nn.Module, name: str, step: int) -> bool:
        """Draw after ``step`` iterations; return whether there was anything to draw.

        Args:
            runner (Runner): Of the run.
            student (nn.Module): The unwrapped model, or one student of a ``MultiStudent``.
            name (str): Name of the student; empty if there is one.
            step (int): Step for the visualizer.
        """
        raise NotImplementedError

    def before_train(self, runner: Runner) -> None:
        """Draw the first picture, unless the run was resumed."""
        self.started = time.perf_counter()
        with kept_random_states():
            self.prepare(runner)
        if runner.iter == 0:
            self.attempt(runner, 0)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Draw at the interval and at the end, if iterations are counted."""
        if not self.by_epoch and (self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner)):
            self.attempt(runner, runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        """Draw at the interval and at the end, if epochs are counted."""
        if self.by_epoch and (self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner)):
            self.attempt(runner, runner.iter)

    def after_train(self, runner: Runner) -> None:
        """Log the number of pictures and the time that they took."""
        if is_main_process() and self.pictures:
            total = time.perf_counter() - self.started
            runner.logger.info(f'{type(self).__name__}: {self.pictures} times in {self.seconds:.1f} s, '
                               f'{100 * self.seconds / total:.2f} % of {total:.0f} s.')

    def attempt(self, runner: Runner, step: int) -> None:
        """Draw every student on the main process, once a step; errors become warnings."""
        if step == self.last_step:
            return
        self.last_step = step
        if not is_main_process():
            return
        began = time.perf_counter()
        for prefix, student in students_of(unwrapped(runner)).items():
            try:
                with kept_random_states():
                    self.pictures += bool(self.draw(runner, student, prefix.rstrip('.'), step))
            except Exception as error:  # no picture is worth a run
                reason = f'{type(error).__name__}: {error}'.splitlines()[0]
                runner.logger.warning(f'{type(self).__name__} drew nothing at iteration {step} ({reason}); training '
                                      f'continues.')
        self.seconds += time.perf_counter() - began

    def show(self, runner: Runner, picture: str, name: str, figure: Figure, step: int) -> bool:
        """Pass a figure to the visualizer. With several students its name is, for example, ``attention-tiny``."""
        runner.visualizer.add_image(f'{picture}-{name}' if name else picture, to_array(figure), step)
        return True
