"""Tiny networks, files and folders that the tests share. Everything is generated."""
import copy
import functools
import logging
import random
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from PIL import Image

import mimhd_mm  # noqa: F401
from mimhd_mm.registry import MODELS

torch.set_num_threads(1)  # networks are tiny: more threads wait for each other

STUDENT = dict(embed_dims=24, num_layers=3, num_heads=3, feedforward_channels=48)
TEACHER = dict(embed_dims=48, num_layers=4, num_heads=4, feedforward_channels=96)
DECODER = dict(decoder_embed_dim=32, decoder_depth=2, decoder_num_heads=4)
SIZE = dict(img_size=32, patch_size=8)  # 16 patches


class NoProgram(subprocess.Popen):
    """Starts no interpreter of Python and no shell script: each costs seconds, so tests that start one are slow."""

    def __init__(self, args, *others, **kwargs):
        program = Path(str(args if isinstance(args, (str, bytes)) else args[0])).name
        assert not program.startswith(('python', 'bash')), f'mark this test as slow: it starts {program}'
        super().__init__(args, *others, **kwargs)


@pytest.fixture(autouse=True)
def _fast_tests_start_no_program(request, monkeypatch):
    if request.node.get_closest_marker('slow') is None:
        monkeypatch.setattr(subprocess, 'Popen', NoProgram)


@pytest.fixture(autouse=True)
def _scope_and_seed():
    init_default_scope('mmpretrain')
    MMLogger.get_instance('tests', log_level='ERROR').setLevel(logging.ERROR)
    torch.manual_seed(0)
    random.seed(0)


def read_config(path) -> Config:
    """A config of one's own; the file and its bases are parsed once."""
    return copy.deepcopy(_read_config(Path(path)))


@functools.cache
def _read_config(path: Path) -> Config:
    return Config.fromfile(path)


def build_mae(norm_pix: bool = True, **size):
    """mmpretrain's MAE with the shape of the tests' teacher."""
    size = {**SIZE, **size}
    return MODELS.build(dict(
        type='mmpretrain.MAE',
        backbone=dict(type='MAEViT', arch=TEACHER, mask_ratio=0.75, **size),
        neck=dict(type='MAEPretrainDecoder', num_patches=(size['img_size'] // size['patch_size']) ** 2,
                  patch_size=size['patch_size'], embed_dim=TEACHER['embed_dims'], **DECODER),
        head=dict(type='MAEPretrainHead', norm_pix=norm_pix, patch_size=size['patch_size'],
                  loss=dict(type='PixelReconstructionLoss', criterion='L2'))))


def to_official(state_dict: dict) -> dict:
    """Rename an OpenMMLab MAE state dict to the official layout, written down independently of the package."""
    out = {}
    for key, value in state_dict.items():
        part, _, key = key.partition('.')
        key = key.replace('.ln1.', '.norm1.').replace('.ln2.', '.norm2.')
        key = key.replace('.ffn.layers.0.0.', '.mlp.fc1.').replace('.ffn.layers.1.', '.mlp.fc2.')
        key = key.replace('patch_embed.projection', 'patch_embed.proj')
        if part == 'backbone':
            key = key.replace('ln1.', 'norm.') if key.startswith('ln1.') else key.replace('layers.', 'blocks.', 1)
        elif key.startswith('ln1.'):
            key = key.replace('ln1.', 'decoder_norm.')
        out[key] = value
    return out


@pytest.fixture(scope='session')
def teacher_file(tmp_path_factory):
    """An MAE checkpoint in OpenMMLab's layout, random but for fixed seed."""
    init_default_scope('mmpretrain')
    torch.manual_seed(7)
    mae = build_mae()
    for parameter in mae.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    path = tmp_path_factory.mktemp('teacher') / 'mae.pth'
    torch.save(dict(state_dict=mae.state_dict(), meta={}), path)
    return path


def mimhd_cfg(teacher_file, **changes) -> dict:
    """A MIM-HD config for the tiny student and teacher; ``changes`` are merged into it, key by key."""
    cfg = dict(
        type='mimhd_mm.MIMHD',
        backbone=dict(type='RelationViT', arch=STUDENT, **SIZE),
        target_generator=dict(type='MAETeacher', checkpoint=str(teacher_file), arch=TEACHER, block=3, **SIZE),
        head=dict(type='RelationDistillHead', matcher=dict(type='AttentionHeadMatcher')),
        neck=dict(type='DualViewMAEDecoder', **DECODER),
        rec_head=dict(type='MAEPixelHead', norm_pix=True,
                      loss=dict(type='PixelReconstructionLoss', criterion='L2')))
    cfg = copy.deepcopy(cfg)
    for key, value in changes.items():
        cfg[key] = dict(cfg[key], **value) if isinstance(value, dict) and key in cfg else value
    return cfg


@pytest.fixture
def build_mimhd(teacher_file):
    """Builds and initialises a tiny MIM-HD model; keyword arguments change the config."""
    def build(**changes):
        model = MODELS.build(mimhd_cfg(teacher_file, **changes))
        model.init_weights()
        return model
    return build


@pytest.fixture(scope='session')
def image_folder(tmp_path_factory):
    """Two classes of smooth random images, 16 each, as PNG files in class folders, 32 x 32."""
    root = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for label, name in enumerate(('stripes', 'blobs')):
        (root / name).mkdir()
        for index in range(16):
            coarse = rng.integers(0, 256, (4, 1 if label == 0 else 4, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((32, 32), Image.BICUBIC).save(root / name / f'{index}.png')
    return root
