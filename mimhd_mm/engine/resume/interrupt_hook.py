"""``InterruptHook``: on a stop signal, save a checkpoint and exit with a status that asks for a restart."""
import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType

import torch
from mmengine.dist import all_reduce, barrier
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ...registry import HOOKS
from .safe_checkpoint_hook import save_interrupted

#: EX_TEMPFAIL of sysexits.h, "temporary failure, try again"; Python ends with 1 or 2, bash with 126 and more
INTERRUPTED_STATUS = 75
#: seconds within which further signals are ignored, because launchers and schedulers send a signal twice; our choice
SAME_SIGNAL = 5.


@HOOKS.register_module()
class InterruptHook(Hook):
    """On SIGTERM or SIGUSR1 finish the iteration, save a checkpoint and end with status 75.

    Schedulers send SIGTERM before they take a machine away; Slurm's ``--signal=USR1@120`` sends SIGUSR1 before the time
    limit. After every iteration of training or evaluation the processes agree whether to stop. ``--resume`` continues
    from ``interrupted_iter_N.pth``, also in the middle of an epoch. A second signal, five seconds or more after the
    first, and Ctrl-C stop the run at once.
    """

    priority = 'LOWEST'  # after the iteration's own checkpoint

    def __init__(self) -> None:
        self.received: int | None = None
        self.received_at = 0.
        self.before: dict = {}

    def before_train(self, runner: Runner) -> None:
        """Install the signal handlers."""
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            self.before = {number: signal.signal(number, self._receive)
                           for number in (signal.SIGTERM, signal.SIGUSR1)}

    def after_train(self, runner: Runner) -> None:
        """Restore the previous signal handlers."""
        while self.before:
            signal.signal(*self.before.popitem())

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Stop if any process received a signal. This iteration is finished but not counted yet."""
        if self._is_told(runner):
            self._stop(runner, runner.epoch, runner.iter + 1)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Stop during an evaluation; ``--resume`` repeats the evaluation."""
        padded = getattr(runner.val_dataloader.sampler, 'round_up', True)  # else processes end at other iterations
        if self.before and (runner.world_size == 1 or padded) and self._is_told(runner):
            self._stop(runner, runner.epoch, runner.iter)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received, self.received_at = number, time.monotonic()
        elif time.monotonic() - self.received_at > SAME_SIGNAL:
            signal.signal(number, self.before[number])
            os.kill(os.getpid(), number)

    def _is_told(self, runner: Runner) -> bool:
        if runner.world_size == 1:
            return self.received is not None
        told = torch.tensor(int(self.received is not None))
        all_reduce(told, op='max')
        return bool(told)

    def _stop(self, runner: Runner, epoch: int, iteration: int) -> None:
        if not any(getattr(hook, 'saved_iter', None) == iteration for hook in runner.hooks):
            save_interrupted(runner, epoch, iteration)
        cause = signal.Signals(self.received).name if self.received else 'A signal to another process'
        runner.logger.warning(f'{cause}: training ends after {iteration} iterations with status {INTERRUPTED_STATUS}; '
                              f'--resume continues from there.')
        for number in self.before:
            signal.signal(number, signal.SIG_IGN)  # a late signal would change the status
        if os.environ.get('LOCAL_RANK', '0') == '0' and os.environ.get('MIMHD_MM_STATUS_FILE'):  # for dist_run.py
            Path(os.environ['MIMHD_MM_STATUS_FILE']).write_text(str(INTERRUPTED_STATUS))
        barrier()
        raise SystemExit(INTERRUPTED_STATUS)
