"""Samples that depend only on seed, epoch and index, and a sampler that can start at any position.

No hook can save or restore the random states of worker processes. With ``persistent_workers=True`` they continue from
epoch to epoch, with ``False`` every epoch repeats the same ones, and batches fetched ahead of a checkpoint are lost. So
the sampler passes the epoch with each index, and the dataset seeds itself from both. A run that starts in the middle of
an epoch then gets the samples of an uninterrupted one, for any number of workers, and every epoch has its own
augmentations.

Loaders with a ``batch_sampler`` are not supported, because their position is not a number of samples.
"""
import atexit
import hashlib
import itertools
import mmap
import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from ..registry import DATA_SAMPLERS, DATASETS

#: seconds that a worker keeps running after SIGTERM while its process saves a checkpoint; our choice
WORKER_GRACE = 120
#: shared with forked workers; not 0 when this process ends, because Python then sends them SIGTERM
_ENDING = mmap.mmap(-1, 1)
_OWNER = os.getpid()


class SampleKey(NamedTuple):
    """What the sampler passes to the dataset.

    Attributes:
        index (int): Of the sample.
        epoch (int): Which pass over the data, from 0.
    """
    index: int
    epoch: int


def mixed_seed(*numbers: int) -> int:
    """Hash numbers, in their order, to a seed of 32 bits."""
    return int.from_bytes(hashlib.blake2b(repr(tuple(map(int, numbers))).encode(), digest_size=4).digest(), 'big')


def seed_cpu(seed: int) -> None:
    """Seed Python's, numpy's and torch's generators on the CPU only; a forked worker must not use the GPU."""
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)


@contextmanager
def seeded_cpu(seed: int) -> Iterator[None]:
    """Seed the generators inside the context and restore their states afterwards."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        seed_cpu(seed)
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


class WrappedDataset(Dataset):
    """A dataset around another, with the interface of mmengine's dataset wrappers.

    Args:
        dataset (dict | Dataset): What is wrapped.
    """

    def __init__(self, dataset: dict | Dataset) -> None:
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset

    @property
    def metainfo(self) -> dict:
        """Metadata of the wrapped dataset; empty if it has none."""
        return getattr(self.dataset, 'metainfo', {})

    def full_init(self) -> None:
        """Initialise the wrapped dataset, if it has ``full_init``."""
        if hasattr(self.dataset, 'full_init'):
            self.dataset.full_init()

    def get_data_info(self, idx: int) -> dict:
        """Annotation of the wrapped dataset."""
        return self.dataset.get_data_info(idx)

    def __len__(self) -> int:
        return len(self.dataset)


@DATASETS.register_module()
class SeededDataset(WrappedDataset):
    """Seed every sample from (seed, epoch, index).

    Rank and number of processes have no influence, so a global batch is the same for any number of processes. A dataset
    with a method ``of_epoch(index, epoch, seed)``, such as ``FixedViews``, gets all three numbers.

    Args:
        dataset (dict | Dataset): What is wrapped.
        seed (int): Of the run; the same in all processes. Defaults to 0.
    """

    def __init__(self, dataset: dict | Dataset, seed: int = 0) -> None:
        super().__init__(dataset)
        self.seed = seed

    def __getitem__(self, key: int | SampleKey):
        """The sample; a plain index means the first epoch."""
        index, epoch = key if isinstance(key, SampleKey) else (key, 0)
        if hasattr(self.dataset, 'of_epoch'):
            return self.dataset.of_epoch(index, epoch, self.seed)
        seed = mixed_seed(self.seed, epoch, index)
        if get_worker_info() is not None:  # nothing else draws there
            seed_cpu(seed)
            return self.dataset[index]
        with seeded_cpu(seed):
            return self.dataset[index]


@DATA_SAMPLERS.register_module()
class PositionedSampler(Sampler):
    """The order of another sampler from any position on, with the epoch beside each index.

    Args:
        sampler (dict): Config of a sampler. mmengine's ``InfiniteSampler`` and its subclasses never end; any other is
            taken to end after one pass.
        dataset (Sized): What is sampled.
        seed (int, optional): For the sampler. None lets the processes agree on one. Defaults to None.
    """

    def __init__(self, sampler: dict, dataset: Dataset, seed: int | None = None) -> None:
        self.settings = sampler
        self.dataset = dataset
        self.epoch = 0
        self._start = 0
        self._build(seed)

    def _build(self, seed: int | None) -> None:
        self.sampler = DATA_SAMPLERS.build(
            dict(self.settings), default_args=dict(dataset=self.dataset, seed=seed))

    @property
    def endless(self) -> bool:
        """Whether the order never ends."""
        return isinstance(self.sampler, InfiniteSampler)

    @property
    def seed(self) -> int:
        """Seed of the order."""
        return getattr(self.sampler, 'seed', 0)

    @seed.setter
    def seed(self, seed: int) -> None:
        self.sampler.seed = seed

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, from 0, of the next order."""
        self.epoch = epoch

    def start_at(self, position: int) -> None:
        """Skip this number of samples of this process in the next order only."""
        self._start = position

    def __iter__(self) -> Iterator[SampleKey]:
        start, self._start = self._start, 0
        return self._endless_order(start) if self.endless else iter(self._order()[start:])

    def _order(self) -> list[SampleKey]:
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(self.epoch)
        with seeded_cpu(mixed_seed(self.seed, self.epoch)):  # for samplers that draw from the global generators
            return [SampleKey(index, self.epoch) for index in self.sampler]

    def _endless_order(self, start: int) -> Iterator[SampleKey]:
        self._build(self.seed)  # only a new sampler starts at the beginning
        rank, world_size, size = self.sampler.rank, self.sampler.world_size, len(self.dataset)
        for position, index in enumerate(itertools.islice(iter(self.sampler), start, None), start):
            yield SampleKey(index, (position * world_size + rank) // size)

    def __len__(self) -> int:
        return len(self.sampler)


def positioned_settings(loader: dict, seed: int) -> dict | None:
    """A loader's config with its dataset and its sampler wrapped.

    Args:
        loader (dict): ``train_dataloader`` of a config.
        seed (int): For :class:`SeededDataset`.

    Returns:
        dict | None: None where the loader has a ``batch_sampler`` or no configs for dataset and sampler.
    """
    if loader.get('batch_sampler') or not all(isinstance(loader.get(part), dict) for part in ('dataset', 'sampler')):
        return None
    return dict(loader, dataset=dict(type='mimhd_mm.SeededDataset', dataset=loader['dataset'], seed=seed),
                sampler=dict(type='mimhd_mm.PositionedSampler', sampler=loader['sampler']))


def outlive_sigterm(loader: DataLoader) -> None:
    """Keep the loader's workers running for a while after SIGTERM.

    A scheduler signals every process of a job. A worker that ended at once would stop its process before the checkpoint
    is saved. An alarm ends workers that are not needed any more. Workers that are not forked end at once.
    """
    atexit.unregister(_tell_workers)
    atexit.register(_tell_workers)  # registered last, so it runs first: before Python ends its children
    loader.worker_init_fn = partial(_start_worker, loader.worker_init_fn)


def _tell_workers() -> None:
    _ENDING[0] = 1


def _on_sigterm(number, frame) -> None:
    if _ENDING[0]:
        os._exit(0)
    signal.alarm(WORKER_GRACE)


def _start_worker(start: Callable[[int], None] | None, worker: int) -> None:
    if os.getpid() != _OWNER:  # forked: the memory is the owner's
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, _on_sigterm)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # the process saves, and ends its workers itself
    if start is not None:
        start(worker)
