"""A row with one seed: its config, its student's start, and its training in this process."""
import argparse
import contextlib
import copy
import functools
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mimhd_mm.compat import load_checkpoint_safely
from mimhd_mm.datasets.packed_images import PackedFile
from mimhd_mm.datasets.seeded_samples import seeded_cpu
from mimhd_mm.engine.launch import add_common_arguments, build_runner, check_batches, load_config
from mimhd_mm.errors import UserInputError
from mimhd_mm.project import project_root
from mimhd_mm.registry import MODELS

from .caches import with_cache
from .identity import file_hash, short_hash
from .protocol import ProtocolRow, ProtocolSettings

#: steps at the end of a training over which losses are averaged
LAST_STEPS = 50


@dataclass(frozen=True)
class Place:
    """Files of a call.

    Attributes:
        data (Path): Folder with ``train.safetensors`` and ``val.safetensors``, labelled packed images.
        scenes (Path): Folder with ``images`` and ``annotations``, each with ``training`` and ``validation``.
        teacher (Path): MAE file.
        work_dir (Path): For everything that is written.
    """
    data: Path
    scenes: Path
    teacher: Path
    work_dir: Path

    def check(self) -> None:
        """See that everything is there.

        Raises:
            UserInputError: If something is missing.
        """
        if not self.teacher.is_file():
            raise UserInputError(f"No file {str(self.teacher)!r}; give the teacher's checkpoint with --teacher.")
        for folder in (self.scenes / kind / part for kind in ('images', 'annotations')
                       for part in ('training', 'validation')):
            if not folder.is_dir():
                raise UserInputError(f'No folder {str(folder)!r}; give the folder of the scenes with --scenes.')
        classes = [PackedFile(self.data / f'{part}.safetensors').classes for part in ('train', 'val')]
        if not classes[0] or classes[0] != classes[1]:
            raise UserInputError(f'The files of packed images in {str(self.data)!r} have {len(classes[0])} and '
                                 f'{len(classes[1])} classes; pack two class folders of the same classes.')

    def identity(self) -> str:
        """What the images and the teacher are, in six digits."""
        listings = [PackedFile(self.data / f'{part}.safetensors').metadata['listing_sha256']
                    for part in ('train', 'val')]
        return short_hash([listings, file_hash(self.teacher)])[:6]


@functools.cache
def base_config(name: str) -> Config:
    """A config of the project as ``tools/train.py`` reads it; not to be changed."""
    parser = argparse.ArgumentParser()
    add_common_arguments(parser)
    return load_config(parser.parse_args([str(project_root() / name), '--work-dir', 'unused']))


def resolve(row: ProtocolRow, settings: ProtocolSettings) -> Config:
    """A row's config without what depends on the place and the seed.

    Raises:
        UserInputError: If an option does not fit the config.
    """
    cfg = copy.deepcopy(base_config(row.config))
    cfg.merge_from_dict(shared_settings(cfg, row, settings))
    cfg.default_hooks = hooks_of(cfg)
    try:
        cfg.merge_from_dict(copy.deepcopy(row.options))
    except (TypeError, KeyError, AttributeError) as error:
        raise UserInputError(f'Row {row.name!r}: {row.config} does not take its options ({error}).') from error
    return cfg


def shared_settings(cfg: Config, row: ProtocolRow, settings: ProtocolSettings) -> dict:
    """What every row has: images and their views, steps, and a schedule by steps."""
    steps = row.passes // settings.batch_size
    rising = max(1, round(settings.warm_up * steps))
    pipeline = [dict(type='RandomResizedCrop', scale=cfg.model.backbone.img_size, crop_ratio_range=(0.2, 1.0),
                     backend='pillow', interpolation='bicubic'),
                dict(type='RandomFlip', prob=0.5), dict(type='PackInputs')]
    found = {
        'train_dataloader': dict(
            batch_size=settings.batch_size, num_workers=0, persistent_workers=False,
            sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True),
            dataset=dict(_delete_=True, type='FixedViews', num_views=settings.views, dataset=dict(
                type='PackedPart', number=row.images, with_label=False, pipeline=pipeline))),
        'train_cfg': dict(_delete_=True, type='IterBasedTrainLoop', max_iters=steps),
        'param_scheduler': [
            dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=rising),
            dict(type='CosineAnnealingLR', by_epoch=False, begin=rising, end=steps, T_max=max(steps - rising, 1),
                 eta_min=0.)],
        'log_processor': dict(by_epoch=False), 'log_level': 'ERROR',
        'visualizer': dict(_delete_=True, type='Visualizer', vis_backends=[])}
    if 'target_generator' in cfg.model:
        found['model.target_generator.dtype'] = 'bfloat16'
    return found


def hooks_of(cfg: Config) -> dict:
    """No pictures, no probe, no log but the message hub's, and one checkpoint, the last, without the optimiser."""
    hooks = dict(
        logger=None, timer=dict(type='IterTimerHook'), param_scheduler=dict(type='ParamSchedulerHook'),
        checkpoint=dict(type='mimhd_mm.SafeCheckpointHook', by_epoch=False, interval=-1, save_optimizer=False,
                        save_param_scheduler=False),
        exact_resume=dict(type='mimhd_mm.ExactResumeHook'), non_finite=dict(type='mimhd_mm.NonFiniteHook'))
    if 'head_weight' in cfg.default_hooks:
        hooks['head_weight'] = dict(type='HeadWeightHook', interval=25)
    return hooks


def settings_key(row: ProtocolRow, settings: ProtocolSettings) -> str:
    """A hash of all that decides a row's outcome but for seed, images' files and teacher's file."""
    if row.kind == 'pixels':
        return short_hash(['pixels'])
    cfg = resolve(row, settings)
    if row.kind == 'teacher':
        return short_hash(['teacher', cfg.model.target_generator.to_dict()])
    if not row.passes:
        return short_hash(['untrained', cfg.model.backbone.to_dict()])
    parts = {key: cfg[key] for key in ('model', 'data_preprocessor', 'train_dataloader', 'train_cfg', 'param_scheduler',
                                       'optim_wrapper')}
    parts = Config(copy.deepcopy(parts)).to_dict()
    parts['model'].get('target_generator', {}).pop('checkpoint', None)
    return short_hash(parts)


def placed(cfg: Config, place: Place, seed: int, folder: Path, start: Path) -> tuple[Config, dict]:
    """The config that is run: images, teacher, seed and the student's start filled in; and what the teacher took."""
    cfg = copy.deepcopy(cfg)
    cfg.merge_from_dict({
        'train_dataloader.dataset.dataset.file': str(place.data / 'train.safetensors'),
        'randomness': dict(seed=seed), 'work_dir': str(folder), 'load_from': str(start),
        'experiment_name': f'{folder.name}-{os.getpid()}-{time.monotonic_ns()}'})  # mmengine keeps one log a name
    taken = with_cache(cfg, place.teacher, place.work_dir / 'caches')
    return cfg, taken


def student_start(backbone: dict, seed: int, folder: Path) -> Path:
    """The weights that every student of these sizes starts from with this seed, as a checkpoint.

    Args:
        backbone (dict): Of a config; head counts and drop path make no difference to the weights.
        seed (int): Of the run.
        folder (Path): Where such files are.

    Returns:
        Path: The file, written if it is not there.
    """
    sizes = {key: backbone[key] for key in ('arch', 'img_size', 'patch_size')}
    path = folder / f'start-{short_hash(sizes)}-s{seed}.pth'
    if not path.is_file():
        with seeded_cpu(seed):
            student = MODELS.build(dict(type='mimhd_mm.RelationViT', **copy.deepcopy(sizes)))
            student.init_weights()
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
        torch.save(dict(state_dict={f'backbone.{key}': value for key, value in student.state_dict().items()},
                        meta={}), temporary)
        os.replace(temporary, path)
    return path


class SameStart(Hook):
    """Refuses to train a student whose weights are not those of the file it starts from."""

    def __init__(self, start: Path) -> None:
        self.start = load_checkpoint_safely(start)['state_dict']

    def before_train(self, runner: Runner) -> None:
        """Compare every tensor of the backbone."""
        model = runner.model.state_dict()
        for key, value in self.start.items():
            if key not in model or not torch.equal(model[key].cpu(), value):
                raise UserInputError(f"The student does not start from its file: {key} differs; give the row's "
                                     f'backbone the arch, img_size and patch_size of the others.')


def train(cfg: Config, start: Path) -> dict:
    """Train in this process.

    Args:
        cfg (Config): Of :func:`placed`.
        start (Path): Of :func:`student_start`.

    Returns:
        dict: ``state``, the student's weights; ``steps``; ``seconds`` and ``cpu_seconds`` of the whole training;
        ``step_seconds`` without the start and the reading of images; ``logged``, losses over the last
        :data:`LAST_STEPS` steps and the last figures of the head weights.
    """
    clock, cpu = time.perf_counter(), time.process_time()
    Path(cfg.work_dir).mkdir(parents=True, exist_ok=True)
    with open(Path(cfg.work_dir) / 'output.txt', 'w') as output, contextlib.redirect_stdout(output):
        runner = build_runner(cfg)
        check_batches(runner)
        runner.register_hook(SameStart(start))
        runner.train()
    history = {key.removeprefix('train/'): buffer.data[0].tolist()
               for key, buffer in runner.message_hub.log_scalars.items()}
    return dict(
        state={key: value.cpu() for key, value in runner.model.backbone.state_dict().items()},
        steps=runner.iter, seconds=round(time.perf_counter() - clock, 1),
        cpu_seconds=round(time.process_time() - cpu, 1),
        step_seconds=round(sum(history['time']) - sum(history['data_time']), 1), logged=last_figures(history))


def last_figures(history: dict[str, list[float]]) -> dict[str, float]:
    """The mean of every loss over the last steps, and the last value of what tells of the heads."""
    losses = {key: values[-LAST_STEPS:] for key, values in history.items() if key.startswith('loss')}
    figures = {key: sum(values) / len(values) for key, values in losses.items()}
    figures.update({key: values[-1] for key, values in history.items() if key.startswith('head_')})
    return {key: round(value, 5) for key, value in figures.items() if math.isfinite(value)}


def frozen_student(backbone: dict, state: dict | None) -> torch.nn.Module:
    """The student as it is used downstream: every token, every block, evaluation mode.

    Args:
        backbone (dict): Of a config; a MAE's encoder is loaded into the same class as the others.
        state (dict): Its weights.
    """
    settings = {key: backbone[key] for key in ('arch', 'img_size', 'patch_size', 'relation_heads') if key in backbone}
    student = MODELS.build(dict(type='mimhd_mm.RelationViT', **copy.deepcopy(settings)))
    student.load_state_dict(state)
    student.eval()  # mmpretrain's returns nothing
    return student.requires_grad_(False)
