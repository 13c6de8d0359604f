"""Dump what every config resolves to and what seeded micro runs compute; compare two dumps.

    python -m lab.proof dump OUT.json
    python -m lab.proof compare A.json B.json

The runs are three steps each of MIM-HD, TinyMIM, DMAE, a fine-tuning and a segmentation by the real Runner, on images
and a teacher that are made up. Losses are compared bit by bit, weights by the sha256 of every tensor. This file imports
of the project only what configs can name, so that it dumps older commits too.
"""
import argparse
import copy
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import RUNNERS, DefaultScope
from PIL import Image
from torch import nn

from mimhd_mm import version
from mimhd_mm.registry import MODELS

STEPS = 3
STUDENT = dict(embed_dims=24, num_layers=3, num_heads=3, feedforward_channels=48)
TEACHER = dict(embed_dims=48, num_layers=4, num_heads=4, feedforward_channels=96)
DECODER = dict(decoder_embed_dim=32, decoder_depth=2, decoder_num_heads=4)
SIZE = dict(img_size=32, patch_size=8)  # 16 patches
PIXELS = dict(type='PixelReconstructionLoss', criterion='L2')
NORMALISE = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
CROPS = [dict(type='LoadImageFromFile'), dict(type='RandomResizedCrop', scale=32), dict(type='RandomFlip', prob=0.5),
         dict(type='PackInputs')]
MISSING = '(absent)'


# ------------------------------------------------------------------------------------------------------------- configs
def dump_configs(folder: Path) -> dict:
    """What every config of a folder resolves to, without the text of the files it was read from.

    Returns:
        dict: By path below ``folder`` the ``content``, as JSON has it, and its ``sha256``.
    """
    entries = {}
    for path in sorted(folder.rglob('*.py')):
        if '_base_' not in path.relative_to(folder).parts:
            content = json.loads(json.dumps(Config.fromfile(path).to_dict(), default=repr, sort_keys=True))
            text = json.dumps(content, sort_keys=True)
            entries[path.relative_to(folder).as_posix()] = dict(
                sha256=hashlib.sha256(text.encode()).hexdigest(), content=content)
    return entries


# ---------------------------------------------------------------------------------------------------------------- data
def write_data(folder: Path) -> None:
    """Two classes of 8 images of 48 x 48, a label map of 3 classes to each, and the file of an MAE."""
    rng = np.random.default_rng(0)
    for label in range(2):
        for number in range(8):
            coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            truth = Image.fromarray(rng.integers(0, 3, (6, 6), dtype=np.uint8))
            for name, image in ((f'images/{label}/{number}.png', coarse.resize((48, 48), Image.BICUBIC)),
                                (f'truth/{label}/{number}.png', truth.resize((48, 48), Image.NEAREST))):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                image.save(folder / name)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        mae = MODELS.build(dict(
            type='MAE', backbone=dict(type='MAEViT', arch=TEACHER, mask_ratio=0.75, **SIZE),
            neck=dict(type='MAEPretrainDecoder', num_patches=16, patch_size=8, embed_dim=48, **DECODER),
            head=dict(type='MAEPretrainHead', norm_pix=True, patch_size=8, loss=PIXELS)))
    generator = torch.Generator().manual_seed(0)
    for parameter in mae.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    torch.save(dict(state_dict=mae.state_dict(), meta={}), folder / 'mae.pth')


# ---------------------------------------------------------------------------------------------------------------- runs
def pretrain_models(folder: Path) -> dict:
    """The models of the pre-training runs, by name."""
    teacher = dict(checkpoint=str(folder / 'mae.pth'), arch=TEACHER, block=3, **SIZE)
    student = dict(type='mimhd_mm.RelationViT', arch=STUDENT, drop_path_rate=0.1, **SIZE)
    return dict(
        mimhd=dict(
            type='mimhd_mm.MIMHD', backbone=student, target_generator=dict(type='mimhd_mm.MAETeacher', **teacher),
            head=dict(type='mimhd_mm.RelationDistillHead', matcher=dict(type='mimhd_mm.AttentionHeadMatcher')),
            neck=dict(type='mimhd_mm.DualViewMAEDecoder', **DECODER),
            rec_head=dict(type='mimhd_mm.MAEPixelHead', norm_pix=True, loss=PIXELS)),
        tinymim=dict(
            type='mimhd_mm.TinyMIM', backbone=dict(student, relation_heads=4),
            target_generator=dict(type='mimhd_mm.MAETeacher', **teacher),
            head=dict(type='mimhd_mm.RelationDistillHead', matcher=dict(type='mimhd_mm.OneToOneHeadMatcher'),
                      with_cls_token=True)),
        dmae=dict(
            type='mimhd_mm.DMAE', backbone=dict(type='mimhd_mm.TappedMAEViT', arch=STUDENT, **SIZE),
            target_generator=dict(type='mimhd_mm.MaskedMAETeacher', **teacher),
            neck=dict(type='MAEPretrainDecoder', **DECODER),
            head=dict(type='MAEPretrainHead', norm_pix=False, loss=PIXELS)))


def run_settings(folder: Path, name: str, model: dict) -> dict:
    """The config of a run: three steps of four images, AdamW."""
    labelled = name == 'finetune'
    dataset = dict(type='CustomDataset', data_root=str(folder / 'images'), with_label=labelled, pipeline=CROPS)
    cfg = dict(
        model=model, default_scope='mmpretrain', runner_type='mimhd_mm.ResumableRunner', work_dir=str(folder / name),
        experiment_name=f'{folder.name}-{name}', log_level='ERROR',
        data_preprocessor=dict(type='ClsDataPreprocessor' if labelled else 'SelfSupDataPreprocessor', **NORMALISE),
        train_dataloader=dict(batch_size=4, num_workers=0, dataset=dataset, collate_fn=dict(type='default_collate'),
                              sampler=dict(type='InfiniteSampler', shuffle=True)),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=STEPS), randomness=dict(seed=0, deterministic=True),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3), clip_grad=dict(max_norm=3.)),
        default_hooks=dict(checkpoint=dict(type='mimhd_mm.SafeCheckpointHook', by_epoch=False, interval=-1)))
    if name == 'segmentation':
        del cfg['data_preprocessor'], cfg['train_dataloader']['collate_fn']
        cfg['default_scope'] = 'mmseg'
        cfg['train_dataloader']['dataset'] = dict(
            type='BaseSegDataset', data_root=str(folder), img_suffix='.png', metainfo=dict(classes=('a', 'b', 'c')),
            data_prefix=dict(img_path='images', seg_map_path='truth'), pipeline=[
                dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
                dict(type='RandomCrop', crop_size=(32, 32)), dict(type='RandomFlip', prob=0.5),
                dict(type='PackSegInputs')])
    return cfg


def downstream_models(student_file: Path) -> dict:
    """The models of the runs that start from a student, by name."""
    start = dict(type='Pretrained', prefix='backbone.', checkpoint=str(student_file))
    return dict(
        finetune=dict(
            type='ImageClassifier',
            backbone=dict(type='VisionTransformer', arch=STUDENT, out_type='avg_featmap', final_norm=False,
                          init_cfg=start, **SIZE),
            head=dict(type='LinearClsHead', num_classes=2, in_channels=24)),
        segmentation=dict(
            type='EncoderDecoder', data_preprocessor=dict(type='SegDataPreProcessor', size=(32, 32), **NORMALISE),
            backbone=dict(type='mimhd_mm.RelPosViT', arch=STUDENT, out_type='featmap', out_indices=[2], init_cfg=start,
                          **SIZE),
            decode_head=dict(type='FCNHead', in_channels=24, channels=16, num_convs=1, num_classes=3, in_index=0,
                             norm_cfg=dict(type='BN')),
            test_cfg=dict(mode='whole')))


class Losses(Hook):
    """Keep every loss of every step, exactly."""

    def __init__(self) -> None:
        self.steps: list = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.steps.append({key: float(value).hex() for key, value in outputs.items() if 'loss' in key})


def run(cfg: dict) -> tuple:
    """Train.

    Returns:
        tuple: The model, and a dict of ``losses`` (a dict a step) and ``weights`` (sha256 by tensor).
    """
    losses = Losses()
    with DefaultScope.overwrite_default_scope(cfg['default_scope']):
        runner = RUNNERS.build(Config(copy.deepcopy(cfg)))
        runner.register_hook(losses)
        runner.train()
    weights = {key: hashlib.sha256(value.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
               for key, value in runner.model.state_dict().items()}
    return runner.model, dict(losses=losses.steps, weights=weights)


def dump_runs(folder: Path) -> dict:
    """What the five runs compute, by name; files go into ``folder``."""
    write_data(folder)
    results = {}
    for name, model in pretrain_models(folder).items():
        trained, results[name] = run(run_settings(folder, name, model))
        if name == 'mimhd':
            torch.save(dict(state_dict=trained.state_dict(), meta={}), folder / 'student.pth')
    for name, model in downstream_models(folder / 'student.pth').items():
        results[name] = run(run_settings(folder, name, model))[1]
    return results


# ------------------------------------------------------------------------------------------------------------ commands
def dump(out: Path) -> None:
    """Write the dump of the ``mimhd_mm`` that is imported, and of the configs beside it."""
    torch.set_num_threads(1)
    root = Path(version.__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory() as folder:
        runs = dump_runs(Path(folder))
    content = dict(torch=torch.__version__, configs=dump_configs(root / 'configs'), runs=runs)
    out.write_text(json.dumps(content, indent=1, sort_keys=True) + '\n')
    print(f'{out}: {len(content["configs"])} configs and {len(runs)} runs of {root}')


def differences(one: object, other: object, place: str = '') -> Iterator[str]:
    """One line for every place at which two dumps differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            if not (key == 'sha256' and 'content' in one and 'content' in other):  # the content says more
                yield from differences(one.get(key, MISSING), other.get(key, MISSING), f'{place} > {key}')
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other)):
            yield from differences(*pair, f'{place}[{index}]')
    elif one != other:
        yield f'{place.removeprefix(" > ")}: {shorten(one)} -> {shorten(other)}'


def shorten(value: object, length: int = 60) -> str:
    """A value in at most ``length`` characters."""
    text = value if value == MISSING else json.dumps(value)
    return text if len(text) <= length else f'{text[:length - 3]}...'


def compare(one: Path, other: Path) -> int:
    """Print the differences of two dumps; the exit status is 1 if there are any."""
    first, second = (json.loads(path.read_text()) for path in (one, other))
    lines = list(differences(first, second))
    print('\n'.join(lines) if lines else
          f'Nothing changed: {len(first["configs"])} configs, and losses and weights of {len(first["runs"])} runs.')
    return int(bool(lines))


def main(argv: list | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m lab.proof', description='Prove that nothing changed')
    commands = parser.add_subparsers(dest='command', required=True)
    commands.add_parser('dump', help='write what this clone computes').add_argument('out', type=Path)
    both = commands.add_parser('compare', help='list the differences of two dumps')
    both.add_argument('one', type=Path)
    both.add_argument('other', type=Path)
    args = parser.parse_args(argv)
    if args.command == 'compare':
        return compare(args.one, args.other)
    dump(args.out)
    return 0


if __name__ == '__main__':
    sys.exit(main())
