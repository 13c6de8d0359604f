"""``ExactResumeHook``: makes a resumed run equal to an uninterrupted one, bit by bit on a CPU."""
import logging
import random

import numpy as np
import torch
from mmengine.dist import gather_object, get_rank
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor

from ...datasets.seeded_samples import PositionedSampler, SeededDataset, mixed_seed, seed_cpu
from ...registry import HOOKS
from ..unwrapped import unwrapped
from .loops import base_seed
from .state import has_loaded, is_resumed

KEY = 'exact_resume'


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Seed every iteration by its number; save seeds, position in the data and random states in checkpoints.

    Random numbers of the training process (masks, drop path, mixup, augmentation on the device) are seeded by (seed,
    iteration, rank). Those of a sample are seeded by (seed, epoch, index), see
    :class:`~mimhd_mm.datasets.seeded_samples.SeededDataset`. Saving random states would not be enough: workers fetch
    batches ahead and their states cannot be read, and evaluations draw random numbers in between.

    A checkpoint holds, under ``exact_resume``:

    - the seeds of the run and of the sampler, needed where the config does not set them;
    - the position in the data: the epoch and the number of finished batches (of the run, if it counts iterations), and
      the sizes that these numbers depend on;
    - the random states of Python, numpy, torch and this process's GPU, of every rank. Only other hooks
      that draw before the first iteration use them;
    - the accumulated gradients, if the checkpoint is written between two updates.

    An exact resume needs the same batch size, number of processes and versions; the number of workers may change. On a
    GPU the order of summation inside kernels may still differ. The hook needs
    :class:`~mimhd_mm.engine.resume.runner.ResumableRunner`. With another Runner samples are not seeded, an epoch is
    resumed at its beginning, and only the states of the first process are saved.
    """

    priority = 'HIGHEST'  # before any other hook draws

    def __init__(self) -> None:
        self.seed = 0
        self.saved: dict | None = None
        self.gathered: list[dict] | None = None
        self.reached = (0, 0)  # epoch, and how many batches of it are done after this iteration

    def before_run(self, runner: Runner) -> None:
        """Take the run's seed."""
        self.seed = base_seed(runner)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the saved states if the checkpoint is resumed and not only loaded."""
        if is_resumed(runner):
            self.saved = checkpoint.get(KEY)

    def before_train(self, runner: Runner) -> None:
        """Move to the position at which the checkpoint was written."""
        loader, saved = runner.train_loop.dataloader, self.saved
        if saved is None:
            if is_resumed(runner) and has_loaded(runner):
                print_log('The checkpoint was written without ExactResumeHook: an epoch that had begun starts again.',
                          logger='current', level=logging.WARNING)
            return
        self.seed = saved['seed']
        if isinstance(getattr(loader, 'dataset', None), SeededDataset):
            loader.dataset.seed = self.seed
        sizes = self._sizes(runner)
        changed = [f'{name} {saved["sizes"][name]}, now {sizes[name]}' for name in sizes
                   if saved['sizes'].get(name) != sizes[name]]
        if isinstance(loader.sampler, PositionedSampler) and saved['sampler_seed'] is not None:
            loader.sampler.seed = saved['sampler_seed']
        if changed:
            print_log(f'The checkpoint was written with another {"; ".join(changed)}: training continues, but its '
                      f'result differs from that of a run without the interruption.', logger='current',
                      level=logging.WARNING)
        elif hasattr(runner.train_loop, 'first_batch'):
            runner.train_loop.first_batch = saved['batch']
        if get_rank() < len(saved['ranks']) and not changed:
            self._restore(runner, saved['ranks'][get_rank()])
        self.saved = None  # releases its tensors

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Seed all random generators for this iteration."""
        self.reached = runner.epoch, batch_idx + 1
        seed = mixed_seed(self.seed, runner.iter, get_rank())
        seed_cpu(seed)
        if torch.cuda.is_available():
            torch.cuda.manual_seed(seed)

    def gather_states(self, runner: Runner) -> None:
        """Collect the states of all processes; :class:`~.runner.ResumableRunner` calls it in each of them."""
        self.gathered = gather_object(self._states(runner), dst=0)  # None in the others

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add ``exact_resume`` for the epoch and iteration in ``meta``."""
        loader, meta = runner.train_loop.dataloader, checkpoint['meta']
        epoch, batch = self.reached
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        checkpoint[KEY] = dict(
            seed=self.seed,
            sampler_seed=getattr(getattr(loader, 'sampler', None), 'seed', None),
            epoch=meta['epoch'],
            batch=meta['iter'] if not by_epoch else batch if meta['epoch'] == epoch else 0,
            sizes=self._sizes(runner),
            ranks=self.gathered or [self._states(runner)])
        self.gathered = None

    @staticmethod
    def _sizes(runner: Runner) -> dict[str, int]:
        loader = runner.train_loop.dataloader
        return {'batch size': loader.batch_size or 0, 'number of batches': len(loader),
                'number of processes': runner.world_size}

    @staticmethod
    def _states(runner: Runner) -> dict:
        """The states of this process, in types that can be read back without executing code."""
        version, python, gauss = random.getstate()
        name, keys, *numpy = np.random.get_state()
        wrapper = runner.optim_wrapper
        between = getattr(wrapper, '_inner_count', 0) % getattr(wrapper, '_accumulative_counts', 1) != 0
        return dict(
            python=[version, list(python), gauss], numpy=[name, keys.tolist(), *numpy], torch=torch.get_rng_state(),
            cuda=torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
            gradients={key: parameter.grad.cpu() for key, parameter in unwrapped(runner).named_parameters()
                       if parameter.grad is not None} if between else {})

    @staticmethod
    def _restore(runner: Runner, states: dict) -> None:
        version, python, gauss = states['python']
        random.setstate((version, tuple(python), gauss))
        name, keys, *numpy = states['numpy']
        np.random.set_state((name, np.array(keys, np.uint32), *numpy))
        torch.set_rng_state(states['torch'].cpu())
        if states['cuda'] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(states['cuda'].cpu())
        gradients: dict[str, Tensor] = states['gradients']
        for key, parameter in unwrapped(runner).named_parameters():
            if key in gradients:
                parameter.grad = gradients[key].to(parameter.device)
