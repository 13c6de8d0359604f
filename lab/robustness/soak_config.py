"""A tiny MIM-HD pre-training on images and a teacher that are made up, for a soak without data."""
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image

from mimhd_mm.project import project_root
from mimhd_mm.registry import MODELS

STUDENT = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96)
TEACHER = dict(embed_dims=64, num_layers=3, num_heads=4, feedforward_channels=128)
DECODER = dict(decoder_embed_dim=32, decoder_depth=1, decoder_num_heads=2)
SIZE = dict(img_size=32, patch_size=8)

TEXT = """
_base_ = '{runtime}'
model = dict(
    type='MIMHD',
    backbone=dict(type='RelationViT', arch={student}, drop_path_rate=0.1, **{size}),
    target_generator=dict(type='MAETeacher', checkpoint='{teacher_file}', arch={teacher}, block=2, **{size}),
    head=dict(type='RelationDistillHead', matcher=dict(type='AttentionHeadMatcher')),
    neck=dict(type='DualViewMAEDecoder', **{decoder}),
    rec_head=dict(type='MAEPixelHead', norm_pix=True, patch_size=8,
                  loss=dict(type='PixelReconstructionLoss', criterion='L2')))
data_preprocessor = dict(
    type='SelfSupDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
images = dict(type='CustomDataset', data_root='{images}', with_label=True, pipeline=[
    dict(type='LoadImageFromFile'), dict(type='PackInputs')])
train_dataloader = dict(
    batch_size=6, num_workers=0, drop_last=True, sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'), pin_memory=False,
    dataset=dict(type='CustomDataset', data_root='{images}', with_label=False, pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='RandomResizedCrop', scale=32, crop_ratio_range=(0.2, 1.0), interpolation='bicubic'),
        dict(type='RandomFlip', prob=0.5), dict(type='PackInputs')]))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=6)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
                     clip_grad=dict(max_norm=3.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=5, by_epoch=True, begin=1, end=6, convert_to_iter_based=True)]
default_hooks = dict(
    checkpoint=dict(interval=1),
    knn_probe=dict(type='KNNProbeHook', interval=2, k=5, batch_size=20, num_workers=0, teacher=False,
                   baseline=False, train=images, test=images))
log_level = 'WARNING'
"""


def tiny_config(folder: Path) -> Config:
    """Write images and a teacher into a folder, always the same, and give a config for them.

    60 images make 10 batches, 6 epochs and a checkpoint after each; a k-NN probe after every second.

    Args:
        folder (Path): Created.
    """
    images = _write_images(folder / 'images')
    teacher = _write_teacher(folder / 'teacher.pth')
    text = TEXT.format(
        runtime=(project_root() / 'configs/_base_/mimhd_runtime.py').as_posix(), images=images.resolve().as_posix(),
        teacher_file=teacher.resolve().as_posix(), student=STUDENT, teacher=TEACHER, decoder=DECODER, size=SIZE)
    return Config.fromstring(text, '.py')


def _write_images(folder: Path) -> Path:
    """Two classes of smooth random images, 32 x 32."""
    draw = np.random.default_rng(0)
    for label in range(2):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        for index in range(30):
            coarse = draw.integers(0, 256, (4, 1 if label else 4, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((32, 32), Image.Resampling.BICUBIC).save(
                folder / str(label) / f'{index}.png')
    return folder


def _write_teacher(path: Path) -> Path:
    """An MAE checkpoint in OpenMMLab's layout, random."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        mae = MODELS.build(dict(
            type='mmpretrain.MAE', backbone=dict(type='MAEViT', arch=dict(TEACHER), **SIZE),
            neck=dict(type='MAEPretrainDecoder', num_patches=16, patch_size=8, embed_dim=64, **DECODER),
            head=dict(type='MAEPretrainHead', norm_pix=True, patch_size=8,
                      loss=dict(type='PixelReconstructionLoss', criterion='L2'))))
    for parameter in mae.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    torch.save(dict(state_dict=mae.state_dict(), meta={}), path)
    return path
