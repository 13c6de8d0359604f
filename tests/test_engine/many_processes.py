"""Train a tiny MIM-HD by several processes and write down what each did; test_many_processes.py beside it calls this.

    python -m tests.test_engine.many_processes FOLDER TEACHER IMAGES SCENARIO ...

Imports cost seconds, so processes are forked from one that has them done.
"""
import os
import socket
import sys
import zlib
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from mimhd_mm.engine.launch import build_runner
from mimhd_mm.models import MIMHD
from mimhd_mm.models.views import Views, draw_views
from mimhd_mm.registry import HOOKS, MODELS

from ..conftest import mimhd_cfg

#: scenario -> processes, images a process and pass, passes a step, head matcher; 16 images a step in all of them
SCENARIOS = {
    'one': (1, 16, 1, {}), 'two': (2, 8, 1, {}), 'four': (4, 4, 1, {}), 'one, accumulated': (1, 4, 4, {}),
    'two, accumulated': (2, 4, 2, {}),
    'one, transport': (1, 16, 1, dict(balance='transport')), 'two, transport': (2, 8, 1, dict(balance='transport')),
    'dies': (2, 8, 1, {}), 'bad': (2, 8, 1, {}),
}
EPOCHS = 2  # of 32 images: 4 steps


@MODELS.register_module()
class MaskByImage(MIMHD):
    """Masks follow from the image and how often this process saw it, so that they are the same for any split.

    In training they are drawn in each process; which ones is chance, and what is compared here is all the rest.
    """

    def loss(self, inputs, data_samples=None, **kwargs):
        self.numbers = [zlib.crc32('/'.join(sample.img_path.split('/')[-2:]).encode()) for sample in data_samples]
        return super().loss(inputs, data_samples, **kwargs)

    def draw_masks(self, tokens, images, seen=None, generator=None):
        self.masks = torch.cat([
            draw_views(1, tokens.shape[1] - 1, self.neck.mask_ratio, self.neck.num_views,
                       generator=torch.Generator().manual_seed(number)) for number in self.numbers], dim=1)  # (V, B, N)
        return Views(self.masks, self.masks)


@HOOKS.register_module()
class Witness(Hook):
    """Losses, images, masks and weights of heads of every batch; and what is to go wrong."""

    priority = 'VERY_LOW'

    def __init__(self, scenario: str) -> None:
        self.scenario = scenario
        self.batches = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 2 and runner.rank == 1:
            if self.scenario == 'dies':
                raise RuntimeError('this process dies at iteration 2')
            if self.scenario == 'bad':
                data_batch['inputs'] = data_batch['inputs'] * float('nan')  # its loss alone is not finite

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self.batches.append(dict(
            losses={key: float(value) for key, value in outputs.items() if 'loss' in key}, numbers=model.numbers,
            masks=model.masks, weights={pair: matcher.last_weight for pair, matcher in model.head.matchers.items()},
            inputs=data_batch['inputs'].sum((1, 2, 3))))


def config(folder: Path, teacher: str, images: str, scenario: str) -> Config:
    processes, batch, accumulate, matcher = SCENARIOS[scenario]
    dataset = dict(type='CustomDataset', data_root=images, with_label=False, pipeline=[
        dict(type='LoadAnyImage', max_bad=1), dict(type='RandomResizedCrop', scale=32, crop_ratio_range=(0.3, 1.0)),
        dict(type='RandomFlip', prob=0.5), dict(type='PackInputs')])
    return Config(dict(
        model=mimhd_cfg(teacher, type='MaskByImage', head=dict(matcher=dict(type='AttentionHeadMatcher', **matcher))),
        data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True),
        train_dataloader=dict(
            batch_size=batch, num_workers=0, drop_last=True, dataset=dataset, persistent_workers=False,
            sampler=dict(type='DefaultSampler', shuffle=True), collate_fn=dict(type='default_collate')),
        train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=EPOCHS),
        optim_wrapper=dict(type='GuardedOptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
                           clip_grad=dict(max_norm=3.), accumulative_counts=accumulate),
        default_hooks=dict(non_finite=dict(type='NonFiniteHook')),
        custom_hooks=[dict(type='Witness', scenario=scenario)],
        work_dir=str(folder / scenario.replace(', ', '_')), launcher='none' if processes == 1 else 'pytorch',
        randomness=dict(seed=0, diff_rank_seed=True), default_scope='mmpretrain', log_level='WARNING'))


def train(folder: Path, teacher: str, images: str, scenario: str, rank: int) -> None:
    """What one process does."""
    torch.set_num_threads(1)
    runner = build_runner(config(folder, teacher, images, scenario))
    # the same start for all: each rank has a seed of its own, and DDP hands out that of the first
    runner.train()
    witness = next(hook for hook in runner.hooks if isinstance(hook, Witness))
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    state = {name: value.clone() for name, value in model.state_dict().items()}
    torch.save(dict(batches=witness.batches, state=state, skipped=runner.optim_wrapper.skipped),
               folder / f'{scenario}_{rank}.pth')


def run_scenario(folder: Path, teacher: str, images: str, scenario: str) -> int:
    """Fork the processes of a scenario and wait; those that failed are counted."""
    processes = SCENARIOS[scenario][0]
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        port = found.getsockname()[1]
    children = []
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes), MASTER_ADDR='127.0.0.1',
                              MASTER_PORT=str(port))
            status = 1
            try:
                train(folder, teacher, images, scenario, rank)
                status = 0
            except BaseException as error:
                print(f'{scenario}, process {rank}: {type(error).__name__}: {str(error).splitlines()[0]}',
                      file=sys.stderr)
            finally:
                sys.stderr.flush()
                os._exit(status)
        children.append(child)
    return sum(os.waitpid(child, 0)[1] != 0 for child in children)


if __name__ == '__main__':
    folder, teacher, images, *scenarios = sys.argv[1:]
    for scenario in scenarios:
        print(f'{scenario}: {run_scenario(Path(folder), teacher, images, scenario)} failed', flush=True)
