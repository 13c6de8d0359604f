"""Every config builds, takes a step, and its name agrees with its content."""
import math
import re
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mimhd_mm.engine.optimizers import CPUAmpOptimWrapper  # noqa: F401
from mimhd_mm.models import RelationViT
from mimhd_mm.models.selfsup import students_of
from mimhd_mm.registry import MODELS

from ..conftest import STUDENT, TEACHER, build_mae, read_config

ROOT = Path(__file__).parents[2] / 'configs'
PRETRAIN = sorted((ROOT / 'pretrain').rglob('*.py'))
TABLES = yaml.safe_load((ROOT.parent / 'lab' / 'tables' / 'tables.yml').read_text())
CELLS = [pytest.param(row[kind]['config'], row[kind].get('options', {}), id=f'{table}-{number}-{kind}')
         for table, content in TABLES.items() for number, row in enumerate(content['rows'])
         for kind in ('full', 'mini') if 'config' in row.get(kind, {})]


def shrink(cfg: Config, folder: Path) -> Config:
    """The same config with tiny networks on 32 px images, and a teacher file that fits; blocks at the same depth."""
    model, size = cfg.model, dict(img_size=32, patch_size=8)
    if 'students' in model:
        for name, student in model.students.items():
            alone = dict(student, target_generator=dict(model.target_generator))
            model.students[name] = shrink(Config(dict(model=alone)), folder).model
        teachers = [student.pop('target_generator') for student in model.students.values()]
        model.target_generator = teachers[0]
        return cfg
    student, teacher = (RelationViT.settings_of(part.pop('arch'))['num_layers'] if part else 1
                        for part in (model.backbone, model.get('target_generator')))
    model.backbone.update(arch=dict(STUDENT), **size)
    if model.type == 'MAE':
        model.neck.update(num_patches=16, patch_size=8, embed_dim=24)
        model.head.update(patch_size=8)
        return cfg
    mae = build_mae()
    torch.save(dict(state_dict=mae.state_dict()), folder / 'mae.pth')
    block = math.ceil(model.target_generator.block * TEACHER['num_layers'] / teacher)
    model.target_generator.update(arch=dict(TEACHER), block=block, checkpoint=str(folder / 'mae.pth'), **size)
    if model.backbone.get('relation_block'):
        model.backbone.relation_block = math.ceil(model.backbone.relation_block * STUDENT['num_layers'] / student)
    if model.backbone.get('relation_heads'):
        model.backbone.relation_heads = TEACHER['num_heads']
    if model.get('neck'):
        model.neck.update(decoder_embed_dim=32, decoder_depth=2, decoder_num_heads=4)
    return cfg


@pytest.mark.parametrize('path, options', [*(pytest.param(path, {}, id=path.stem) for path in PRETRAIN), *CELLS])
def test_builds_and_takes_a_step(path, options, tmp_path):
    """Every config, and every row of the paper's tables with its options."""
    cfg = read_config(ROOT.parent / path)
    cfg.merge_from_dict(options)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(shrink(cfg, tmp_path).model)
    model.init_weights()
    model.train()
    losses = model(torch.randn(2, 3, 32, 32), mode='loss')
    sum(value for key, value in losses.items() if 'loss' in key).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    for student in students_of(model).values():
        assert student.backbone.layers[0].attn.qkv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize('path', PRETRAIN, ids=lambda path: path.stem)
def test_name_agrees_with_content(path):
    cfg = read_config(path)
    model, data = cfg.model, cfg.train_dataloader
    gpus, batch = map(int, re.search(r'_(\d+)xb(\d+)-', path.stem).groups())
    assert data.batch_size == batch and cfg.auto_scale_lr.base_batch_size == gpus * batch
    assert ('-amp-' in path.stem) == (cfg.optim_wrapper.type == 'GuardedAmpOptimWrapper')
    epochs = int(re.search(r'coslr-(\d+)e_', path.stem).group(1))
    cosine = cfg.param_scheduler[-1]
    assert cfg.train_cfg.max_epochs == cosine.end == epochs
    assert cosine.type == 'CosineAnnealingLR' and cosine.T_max == cosine.end - cosine.begin
    students = list(model.get('students', dict(alone=model)).values())
    assert all(path.stem.replace('-literal', '').startswith(student.type.lower() + '_') for student in students)
    if path.parent.name != 'ablations':
        assert all(('-literal' in path.stem) == (student.get('head', {}).get('matcher', {}).get('type') ==
                                                 'LiteralHeadMatcher') for student in students)
    pixels = re.search(r'-(\d+)px', path.stem)
    side = students[0].backbone.get('img_size', 224)
    assert side == (int(pixels.group(1)) if pixels else 224)
    crop = next(step.scale for step in data.dataset.pipeline if step.type == 'RandomResizedCrop')
    assert crop == side
    assert students[0].backbone.get('patch_size', 16) == int(re.search(r'-p(\d+)', path.stem).group(1))
    if 'in1k' in path.stem:
        assert data.dataset.type == 'ImageNet'
    if 'tiny-imagenet' in path.stem:
        assert data.dataset.type == 'TinyImageNet'
    widths = {'base': 'base', 'small': 'deit-small', 'tiny': 'deit-tiny'}
    size = re.search(r'vit-([\w-]+)-p\d', path.stem).group(1)
    for name, student in model.get('students', {size: model}).items():
        if name in widths:
            assert student.backbone.arch == widths[name]


@pytest.mark.parametrize('stem, names', [
    ('mimhd_vit-tiny-small-base-p16_8xb256-amp-coslr-100e_in1k', dict.fromkeys(
        ('tiny', 'small', 'base'), 'mimhd_vit-{}-p16_8xb512-amp-coslr-100e_in1k')),
    ('mini/mimhd_vit-micro-two-students-p8_1xb64-coslr-5e_tiny-imagenet-64px', dict(
        micro='mini/mimhd_vit-{}-p8_1xb64-coslr-5e_tiny-imagenet-64px'))], ids=['full', 'mini'])
def test_several_students_are_those_of_single_runs(stem, names):
    together = read_config(ROOT / 'pretrain' / f'{stem}.py')
    settings = dict(together.optim_wrapper, batch_size=together.train_dataloader.batch_size)
    del settings['constructor']
    settings['batch_size'] *= settings.pop('accumulative_counts', 1)
    for name, single in names.items():
        alone = read_config(ROOT / 'pretrain' / f'{single.format(name)}.py')
        shared = {key: together.model[key] for key in ('target_generator', 'token_fraction')}
        assert dict(together.model.students[name], **shared) == alone.model
        assert settings == dict(alone.optim_wrapper, batch_size=alone.train_dataloader.batch_size)
        assert together.param_scheduler == alone.param_scheduler


@pytest.mark.parametrize('path', PRETRAIN, ids=lambda path: path.stem)
def test_header_is_a_contract(path):
    header = path.read_text().split('_base_')[0]
    assert 'Command: ' in header
    command = re.search(r'configs/\S+\.py', header).group(0)
    assert (ROOT.parent / command).is_file() and command.endswith(path.name)


def test_rows_differ_in_what_they_compare(tmp_path):
    """Options and ablation files reach the model: no two rows of a table build the same network."""
    for name, table in TABLES.items():
        for kind in ('full', 'mini'):
            seen = []
            for row in table['rows']:
                if 'config' in row.get(kind, {}):
                    cfg = read_config(ROOT.parent / row[kind]['config'])
                    cfg.merge_from_dict(row[kind].get('options', {}))
                    content = (cfg.model.to_dict(), cfg.train_cfg.max_epochs, cfg.train_dataloader.dataset.type)
                    assert content not in seen, (name, kind, row['name'])
                    seen.append(content)


def test_ablations_by_cfg_options_build(tmp_path, teacher_file):
    """Keys that users change on the command line: Table 4's blocks, Figure 6's views and ratios, pairs, alpha."""
    base = ROOT / 'pretrain' / 'mini' / 'mimhd_vit-micro-p8_1xb64-coslr-5e_tiny-imagenet-64px.py'
    for options in ({'model.backbone.relation_block': 2}, {'model.target_generator.block': 1},
                    {'model.neck.num_views': 1, 'model.neck.mask_ratio': 0.75}, {'model.rec_weight': 0},
                    {'model.head.pairs': ['qk']}, {'model.neck.frozen': False},
                    {'model.head.matcher.type': 'LiteralHeadMatcher'},
                    {'model.head.matcher.type': 'RegroupHeadMatcher'},
                    {'model.relation_block': {}}, {'model.token_fraction': 1.0, 'model.rec_weight': 0.1},
                    {'model.head.loss.criterion': 'L2'}):
        cfg = shrink(read_config(base), tmp_path)
        cfg.merge_from_dict(options)
        model = MODELS.build(cfg.model)
        model.init_weights()
        assert torch.isfinite(sum(model(torch.randn(2, 3, 32, 32), mode='loss').values()))
