"""``DrawingHook``: what the hooks that draw have in common. It decides when, and keeps out of training's way."""
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
    """Draw before training, at an interval, and at the end; on the main process, silently on the others.

    Training goes on as if the hook were not there: modes and random states are given back, and what goes wrong while
    drawing is a warning in the log. After training the log tells what the pictures cost.

    Args:
        interval (int): Epochs between two pictures; iterations where not ``by_epoch``. Defaults to 10.
        by_epoch (bool): False for training loops that count iterations, or for more pictures. Defaults to True.

    Raises:
        UserInputError: If the interval is not a positive whole number.
    """

    priority = 'LOW'  # after what others measure and log of the same iteration

    def __init__(self, interval: int = 10, by_epoch: bool = True) -> None:
        if not isinstance(interval, int) or interval < 1:
            raise UserInputError(f'The interval of a {type(self).__name__} is a whole number of at least 1, not '
                                 f'{interval!r}; leave the hook out to draw nothing.')
        self.interval = interval
        self.by_epoch = by_epoch
        self.pictures, self.seconds, self.last_step = 0, 0., -1

    def prepare(self, runner: Runner) -> None:
        """Called once, in every process, before training.

        Raises:
            UserInputError: If the hook's own settings are wrong: the run then stops before it has begun.
        """

    def draw(self, runner: Runner, student: nn.Module, name: str, step: int) -> bool:
        """Draw after ``step`` iterations; whether there was anything to draw.

        Args:
            runner (Runner): Of the run.
            student (nn.Module): What learns: the model, not wrapped, or one of a ``MultiStudent``.
            name (str): The student's; empty where it is alone.
            step (int): What the visualizer is to call the moment.
        """
        raise NotImplementedError

    def before_train(self, runner: Runner) -> None:
        """The first picture, unless the run was resumed."""
        self.started = time.perf_counter()
        with kept_random_states():
            self.prepare(runner)
        if runner.iter == 0:
            self.attempt(runner, 0)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Draw at the interval and at the end, where iterations are counted."""
        if not self.by_epoch and (self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner)):
            self.attempt(runner, runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        """Draw at the interval and at the end, where epochs are counted."""
        if self.by_epoch and (self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner)):
            self.attempt(runner, runner.iter)

    def after_train(self, runner: Runner) -> None:
        """Say what it cost."""
        if is_main_process() and self.pictures:
            total = time.perf_counter() - self.started
            runner.logger.info(f'{type(self).__name__}: {self.pictures} times in {self.seconds:.1f} s, '
                               f'{100 * self.seconds / total:.2f} % of {total:.0f} s.')

    def attempt(self, runner: Runner, step: int) -> None:
        """Draw every student on the main process, once a step; no error gets out."""
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
            except Exception as error:  # whatever it is, hours of training are worth more than a picture
                reason = f'{type(error).__name__}: {error}'.splitlines()[0]
                runner.logger.warning(f'{type(self).__name__} drew nothing at iteration {step} ({reason}); training '
                                      f'goes on.')
        self.seconds += time.perf_counter() - began

    def show(self, runner: Runner, picture: str, name: str, figure: Figure, step: int) -> bool:
        """Hand the visualizer a figure; one of several students has its name in the picture's: ``attention-tiny``."""
        runner.visualizer.add_image(f'{picture}-{name}' if name else picture, to_array(figure), step)
        return True
