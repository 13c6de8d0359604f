"""``ExactResumeHook``: a resumed run does what the uninterrupted one would have done, to the bit on a CPU."""
import logging
import random
from typing import Dict, List, Optional

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
    """Seed every iteration by its number, and keep in checkpoints what no number tells.

    What is drawn in the process itself (masks, drop path, mixup, augmentation on the device) comes from (seed,
    iteration, rank); what is drawn for a sample, in a worker or not, from (seed, epoch, index), see
    :class:`~mimhd_mm.datasets.seeded_samples.SeededDataset`. Random states that are only saved would not do: batches
    are fetched ahead by workers whose states nobody can read, and evaluations draw in between.

    In a checkpoint, under ``exact_resume``:

    - the seeds of the run and of the sampler, which decide where the config leaves them open;
    - the position in the data: epoch, batches of it that are done (of the run, where it counts iterations), and the
      sizes that give these a meaning;
    - the random states of Python, numpy, torch and this process's GPU, of every rank. They decide what hooks of others
      draw before the first iteration, and nothing else;
    - where gradients are accumulated and the checkpoint falls between two steps, what has been accumulated.

    To be exact a resumed run needs the same batch size, number of processes and versions; the number of workers makes
    no difference. On a GPU the kernels' own order of summation remains. Needs
    :class:`~mimhd_mm.engine.resume.runner.ResumableRunner`; under another Runner samples are not seeded, an epoch is
    resumed at its beginning, and only the first process's states are kept.
    """

    priority = 'HIGHEST'  # before any other hook draws

    def __init__(self) -> None:
        self.seed = 0
        self.saved: Optional[dict] = None
        self.gathered: Optional[List[dict]] = None
        self.reached = (0, 0)  # epoch, and how many batches of it are done after this iteration

    def before_run(self, runner: Runner) -> None:
        """Take the run's seed."""
        self.seed = base_seed(runner)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember what a checkpoint says, when it is resumed and not only loaded."""
        if is_resumed(runner):
            self.saved = checkpoint.get(KEY)

    def before_train(self, runner: Runner) -> None:
        """Go to where the checkpoint was written."""
        loader, saved = runner.train_loop.dataloader, self.saved
        if saved is None:
            if is_resumed(runner) and has_loaded(runner):
                print_log('The checkpoint was written without ExactResumeHook: an epoch that had begun begins anew.',
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
            print_log(f'The checkpoint was written with another {"; ".join(changed)}: training goes on, but not as it '
                      f'would have without the interruption.', logger='current', level=logging.WARNING)
        elif hasattr(runner.train_loop, 'first_batch'):
            runner.train_loop.first_batch = saved['batch']
        if get_rank() < len(saved['ranks']) and not changed:
            self._restore(runner, saved['ranks'][get_rank()])
        self.saved = None  # its tensors are not needed any more

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Seed everything that the iteration may draw from."""
        self.reached = runner.epoch, batch_idx + 1
        seed = mixed_seed(self.seed, runner.iter, get_rank())
        seed_cpu(seed)
        if torch.cuda.is_available():
            torch.cuda.manual_seed(seed)

    def gather_states(self, runner: Runner) -> None:
        """Collect what every process has; :class:`~.runner.ResumableRunner` calls it in all of them."""
        self.gathered = gather_object(self._states(runner), dst=0)  # None in the others

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add ``exact_resume``; the counters of ``meta`` say what the checkpoint holds."""
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
    def _sizes(runner: Runner) -> Dict[str, int]:
        loader = runner.train_loop.dataloader
        return {'batch size': loader.batch_size or 0, 'number of batches': len(loader),
                'number of processes': runner.world_size}

    @staticmethod
    def _states(runner: Runner) -> dict:
        """Of this process, in types that are read back without executing anything."""
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
        gradients: Dict[str, Tensor] = states['gradients']
        for key, parameter in unwrapped(runner).named_parameters():
            if key in gradients:
                parameter.grad = gradients[key].to(parameter.device)
