"""Training loops that resume at any batch of an epoch without loading the batches before it.

mmengine's epoch loop resumes at the beginning of an epoch. Its iteration loop loads all past batches again or, with
``fast_forward_on_resume``, starts from the first sample. The loops here change only the first sample; hooks, counters
and evaluation are the parents'. Samples are seeded, see :mod:`mimhd_mm.datasets.seeded_samples`.
"""
import logging
from collections.abc import Iterator

import torch
from mmengine.dist import get_rank
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from ...datasets.seeded_samples import PositionedSampler, positioned_settings
from ...registry import LOOPS


def base_seed(runner: Runner) -> int:
    """The seed that all processes share, without the rank that mmengine adds if the config sets ``diff_rank_seed``."""
    return runner.seed - (get_rank() if runner._randomness_cfg.get('diff_rank_seed') else 0)


def build_positioned_loader(runner: Runner, loader: DataLoader | dict) -> DataLoader | dict:
    """The training loader with seeded samples; ``loader`` itself where that is not possible."""
    settings = positioned_settings(loader, base_seed(runner)) if isinstance(loader, dict) else None
    if settings is None:
        print_log('The training data are not built from configs of a dataset and a sampler: a resumed run will not '
                  'repeat the uninterrupted one.', logger='current', level=logging.WARNING)
        return loader
    return runner.build_dataloader(
        settings, seed=runner.seed, diff_rank_seed=runner._randomness_cfg.get('diff_rank_seed', False))


@LOOPS.register_module()
class ResumableEpochBasedTrainLoop(EpochBasedTrainLoop):
    """mmengine's loop over epochs that can start in the middle of an epoch.

    Arguments are the parent's. ``first_batch`` is the first batch of the next epoch, and of that epoch only;
    ``mimhd_mm.engine.hooks.ExactResumeHook`` sets it from a checkpoint.
    """

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, *args, **kwargs) -> None:
        super().__init__(runner, build_positioned_loader(runner, dataloader), *args, **kwargs)
        self.first_batch = 0

    def run_epoch(self) -> None:
        """Iterate one epoch, or what is left of it."""
        start, self.first_batch = self.first_batch, 0
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        if isinstance(self.dataloader.sampler, PositionedSampler):
            self.dataloader.sampler.set_epoch(self._epoch)
            self.dataloader.sampler.start_at(start * self.dataloader.batch_size)
        else:
            start = 0
        if start < len(self.dataloader):
            for idx, data_batch in enumerate(self.dataloader, start):
                self.run_iter(idx, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


@LOOPS.register_module()
class ResumableIterBasedTrainLoop(IterBasedTrainLoop):
    """mmengine's loop over iterations that starts at any iteration without loading earlier batches.

    Arguments are the parent's; ``fast_forward_on_resume`` has no effect here.
    """

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, *args, **kwargs) -> None:
        super().__init__(runner, build_positioned_loader(runner, dataloader), *args, **kwargs)
        self.positioned = isinstance(self.dataloader.sampler, PositionedSampler)
        if self.positioned:
            self.dataloader_iterator = self._batches()

    def _batches(self) -> Iterator[dict]:
        """Yield batches from the current iteration on, in one pass over the data after another."""
        sampler, length = self.dataloader.sampler, len(self.dataloader)
        passes, start = (0, self._iter) if sampler.endless else divmod(self._iter, length)
        self.dataloader._iterator = None  # drops workers that were started without seed and position
        while True:
            sampler.set_epoch(passes)
            sampler.start_at(start * self.dataloader.batch_size)
            yield from self.dataloader
            passes, start = passes + 1, 0

    def run(self) -> torch.nn.Module | None:
        """Train with the parent's order of hooks, iterations and evaluations."""
        if not self.positioned:
            return super().run()
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self._decide_current_val_interval()
            if self.runner.val_loop is not None and self._iter >= self.val_begin and (
                    self._iter % self.val_interval == 0 or self._iter == self._max_iters):
                self.runner.val_loop.run()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model
