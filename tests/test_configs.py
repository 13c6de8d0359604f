"""Every config builds, takes a step, and its name agrees with its content."""
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mimhd_mm.engine.optimizers import CPUAmpOptimWrapper  # noqa: F401
from mimhd_mm.registry import MODELS

from .conftest import STUDENT, build_mae

ROOT = Path(__file__).parents[1] / 'configs'
PRETRAIN = sorted((ROOT / 'pretrain').rglob('*.py'))


def shrink(cfg: Config, folder: Path) -> Config:
    """The same config with tiny networks on 32 px images, and a teacher file that fits."""
    model = cfg.model
    model.backbone.update(arch=dict(STUDENT), img_size=32, patch_size=8)
    if model.type == 'MAE':
        model.neck.update(num_patches=16, patch_size=8, embed_dim=24)
        model.head.update(patch_size=8)
        return cfg
    mae = build_mae()
    torch.save(dict(state_dict=mae.state_dict()), folder / 'mae.pth')
    model.target_generator.update(
        arch=dict(embed_dims=48, num_layers=4, num_heads=4, feedforward_channels=96), img_size=32, patch_size=8,
        block=3, checkpoint=str(folder / 'mae.pth'))
    model.neck.update(decoder_embed_dim=32, decoder_depth=2, decoder_num_heads=4)
    return cfg


@pytest.mark.parametrize('path', PRETRAIN, ids=lambda path: path.stem)
def test_builds_and_takes_a_step(path, tmp_path):
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(shrink(cfg, tmp_path).model)
    model.init_weights()
    model.train()
    losses = model(torch.randn(2, 3, 32, 32), mode='loss')
    sum(value for key, value in losses.items() if 'loss' in key).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert model.backbone.layers[0].attn.qkv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize('path', PRETRAIN, ids=lambda path: path.stem)
def test_name_agrees_with_content(path):
    cfg = Config.fromfile(path)
    model, data = cfg.model, cfg.train_dataloader
    gpus, batch = map(int, re.search(r'_(\d+)xb(\d+)-', path.stem).groups())
    assert data.batch_size == batch and cfg.auto_scale_lr.base_batch_size == gpus * batch
    assert ('-amp-' in path.stem) == (cfg.optim_wrapper.type == 'AmpOptimWrapper')
    epochs = int(re.search(r'coslr-(\d+)e_', path.stem).group(1))
    cosine = cfg.param_scheduler[-1]
    assert cfg.train_cfg.max_epochs == cosine.end == epochs
    assert cosine.type == 'CosineAnnealingLR' and cosine.T_max == cosine.end - cosine.begin
    assert path.stem.startswith(model.type.lower() + '_')
    pixels = re.search(r'-(\d+)px', path.stem)
    assert model.backbone.get('img_size', 224) == (int(pixels.group(1)) if pixels else 224)
    crop = next(step.scale for step in data.dataset.pipeline if step.type == 'RandomResizedCrop')
    assert crop == model.backbone.get('img_size', 224)
    assert model.backbone.get('patch_size', 16) == int(re.search(r'-p(\d+)', path.stem).group(1))
    if 'in1k' in path.stem:
        assert data.dataset.type == 'ImageNet'
    if 'tiny-imagenet' in path.stem:
        assert data.dataset.type == 'TinyImageNet'
    widths = {'base': 'base', 'small': 'deit-small', 'tiny': 'deit-tiny'}
    size = re.search(r'vit-([\w-]+)-p\d', path.stem).group(1)
    if size in widths:
        assert model.backbone.arch == widths[size]


@pytest.mark.parametrize('path', PRETRAIN, ids=lambda path: path.stem)
def test_header_is_a_contract(path):
    header = path.read_text().split('_base_')[0]
    assert 'Command: ' in header
    command = re.search(r'configs/\S+\.py', header).group(0)
    assert (ROOT.parent / command).is_file() and command.endswith(path.name)


def test_ablations_by_cfg_options_build(tmp_path, teacher_file):
    """Keys that users change on the command line: Table 4's blocks, Figure 6's views and ratios, pairs, alpha."""
    base = ROOT / 'pretrain' / 'mini' / 'mimhd_vit-micro-p8_1xb64-coslr-5e_tiny-imagenet-64px.py'
    for options in ({'model.backbone.relation_block': 2}, {'model.target_generator.block': 1},
                    {'model.neck.num_views': 1, 'model.neck.mask_ratio': 0.75}, {'model.rec_weight': 0},
                    {'model.head.pairs': ['qk']}, {'model.neck.frozen': False}, {'model.neck.connector': 'direct'},
                    {'model.head.matcher': dict(type='AttentionHeadMatcher', descriptor='mean', balance=None)},
                    {'model.head.loss.criterion': 'L2'}):
        cfg = shrink(Config.fromfile(base), tmp_path)
        cfg.merge_from_dict(options)
        model = MODELS.build(cfg.model)
        model.init_weights()
        assert torch.isfinite(sum(model(torch.randn(2, 3, 32, 32), mode='loss').values()))
