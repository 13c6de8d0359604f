"""Real, tiny training runs that are interrupted, and what they did at every iteration."""
import copy
import hashlib
import os
import signal
import uuid
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mimhd_mm.compat import load_checkpoint_safely
from mimhd_mm.engine import ResumableRunner

NORMALISE = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)


def digest(*tensors: torch.Tensor) -> str:
    """Of the bytes of tensors."""
    return hashlib.sha256(b''.join(tensor.detach().cpu().numpy().tobytes() for tensor in tensors)).hexdigest()[:12]


def images_in(batch: dict) -> list:
    """The image tensors of a batch, stacked or a list of them."""
    inputs = batch['inputs']
    inputs = inputs if isinstance(inputs, (list, tuple)) else [inputs]
    return [image for part in inputs for image in (part if isinstance(part, (list, tuple)) else [part])]


class Seen(Hook):
    """Images, losses and head weights of every iteration; SIGTERM to this process after one of them."""

    priority = 'VERY_LOW'

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at
        self.steps: dict[int, tuple] = {}
        self.places: dict[int, tuple] = {}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        weights = [matcher.last_weight for matcher in model.modules() if hasattr(matcher, 'last_weight')]
        losses = {key: value.item().hex() for key, value in outputs.items() if 'loss' in key}
        self.steps[runner.iter] = digest(*images_in(data_batch)), losses, digest(*weights)
        self.places[runner.iter] = runner.epoch, batch_idx
        if runner.iter + 1 == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)


def settings(model: dict, images: Path, loop: dict, **changes) -> dict:
    """A Runner's arguments: the images of class folders, cropped and flipped; batches of 5 of 32, without the rest."""
    dataset = dict(type='CustomDataset', data_root=str(images), with_label=False, pipeline=[
        dict(type='LoadImageFromFile'), dict(type='RandomResizedCrop', scale=32, crop_ratio_range=(0.3, 1.0)),
        dict(type='RandomFlip', prob=0.5), dict(type='PackInputs')])
    iterations = loop['type'] == 'IterBasedTrainLoop'
    base = dict(
        model=model, data_preprocessor=dict(type='SelfSupDataPreprocessor', **NORMALISE),
        train_dataloader=dict(
            batch_size=5, num_workers=0, drop_last=True, dataset=dataset, collate_fn=dict(type='default_collate'),
            sampler=dict(type='InfiniteSampler' if iterations else 'DefaultSampler', shuffle=True)),
        train_cfg=loop,
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3), clip_grad=dict(max_norm=3.)),
        param_scheduler=[dict(type='LinearLR', start_factor=1e-2, by_epoch=False, begin=0, end=4),
                         dict(type='CosineAnnealingLR', T_max=14, by_epoch=False, begin=4, end=18)],
        default_hooks=dict(
            checkpoint=dict(type='mimhd_mm.SafeCheckpointHook', by_epoch=not iterations, interval=-1),
            exact_resume=dict(type='mimhd_mm.ExactResumeHook'), interrupt=dict(type='mimhd_mm.InterruptHook')),
        randomness=dict(seed=0, diff_rank_seed=True), default_scope='mmpretrain', log_level='WARNING')
    for key, value in changes.items():
        base[key] = {**base[key], **value} if isinstance(value, dict) and isinstance(base.get(key), dict) else value
    return base


def train(config: dict, work_dir: Path, stop_at: int | None = None, hook: Hook | None = None,
          **changes) -> tuple:
    """Train; returns the Runner, what was seen, and the status it ended with (None where it came to its end)."""
    config = copy.deepcopy(config)
    hooks = {**config.pop('default_hooks'), **changes.pop('default_hooks', {})}
    seen = Seen(stop_at)
    name = f'{work_dir.name}_{uuid.uuid4().hex}'  # mmengine keeps one logger and visualizer a name
    runner = ResumableRunner.from_cfg(Config(dict(config, **changes, default_hooks=hooks, work_dir=str(work_dir),
                                                  experiment_name=name)))
    for extra in filter(None, (hook, seen)):
        runner.register_hook(extra)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    status = None
    try:
        runner.train()
    except SystemExit as error:
        status = error.code
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return runner, seen, status


def equal(one, other) -> bool:
    """Whether two states are the same bit by bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def state_of(runner: Runner) -> dict:
    """Weights, optimiser and schedules of a run that has ended."""
    return dict(model=runner.model.state_dict(), optimizer=runner.optim_wrapper.state_dict(),
                schedules=[scheduler.state_dict() for scheduler in runner.param_schedulers])


def read(path: Path) -> dict:
    """A checkpoint, read without executing anything."""
    return load_checkpoint_safely(path)
