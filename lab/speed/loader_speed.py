"""How fast a config's training data arrive, and how long a training would wait for them."""
import time
from collections.abc import Iterator, Sequence
from contextlib import closing

import torch
from mmengine.config import Config
from mmengine.model import BaseDataPreprocessor
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mimhd_mm.errors import UserInputError


def build_loader(cfg: Config, workers: int) -> DataLoader:
    """The training dataloader of a config, with another number of workers.

    Raises:
        UserInputError: If the config has none, or it has no full batch.
    """
    if not cfg.get('train_dataloader'):
        raise UserInputError('The config has no train_dataloader; give one that trains a model.')
    settings = dict(cfg.train_dataloader, num_workers=workers)
    if not workers:  # torch accepts the two only where there are workers
        settings['persistent_workers'] = False
        settings.pop('prefetch_factor', None)
    loader = Runner.build_dataloader(settings, seed=0)
    if not len(loader):
        raise UserInputError(f'{len(loader.dataset)} training images fill no batch of {loader.batch_size}; set '
                             f'--cfg-options train_dataloader.batch_size to a smaller number.')
    return loader


def measure_loader(loader: DataLoader, preprocess: BaseDataPreprocessor, batches: int, step: float = 0.) -> dict:
    """Go through batches as a training does: fetch, preprocess on the device, take a step.

    Batches that workers prepared while they were started are not counted.

    Args:
        loader (DataLoader): Begun anew where it ends.
        preprocess (BaseDataPreprocessor): The model's, on its device.
        batches (int): To measure, 1 or more.
        step (float): Seconds that a training step is to last; the host sleeps instead, as it does beside a busy GPU.
            Defaults to 0.

    Returns:
        dict: ``workers``; ``images_per_second``; ``waited``, the share (0 to 1) of the time spent waiting for batches;
        ``preprocess_ms`` a batch, with the copy to the device; ``start_s`` until the first batch; ``batches``.
    """
    with closing(endless(loader)) as source:
        start = time.perf_counter()
        preprocess(next(source), True)
        start_s = time.perf_counter() - start
        for _ in range(loader.num_workers * (loader.prefetch_factor or 0)):
            next(source)

        images, waited, preprocessing, begin = 0, 0., 0., time.perf_counter()
        for _ in range(batches):
            before = time.perf_counter()
            batch = next(source)
            fetched = time.perf_counter()
            images += len(batch['data_samples'])
            preprocess(batch, True)
            if preprocess.device.type == 'cuda':
                torch.cuda.synchronize(preprocess.device)
            waited += fetched - before
            preprocessing += time.perf_counter() - fetched
            time.sleep(step)
        total = time.perf_counter() - begin
    return dict(workers=loader.num_workers, images_per_second=images / total, waited=waited / total,
                preprocess_ms=1000 * preprocessing / batches, start_s=start_s, batches=batches)


def table_rows(results: Sequence[dict]) -> list[dict]:
    """Results of :func:`measure_loader` as rows of a table."""
    return [{'workers': one['workers'], 'images/s': one['images_per_second'], 'waited, percent': 100 * one['waited'],
             'preprocessing, ms a batch': one['preprocess_ms'], 'first batch after, s': one['start_s']}
            for one in results]


def endless(loader: DataLoader) -> Iterator[dict]:
    """Batches, epoch after epoch."""
    while True:
        yield from loader
