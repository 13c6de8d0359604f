# TinyMIM in miniature, for the epochs of the mini MIM-HD and with its schedule. Drop path and colour jitter are
# TinyMIM's.
# Command: python tools/train.py configs/pretrain/mini/tinymim_vit-micro-p8_1xb64-coslr-5e_tiny-imagenet-64px.py
# Needs the teacher: configs/pretrain/mini/mae_vit-mini-p8_1xb64-coslr-20e_tiny-imagenet-64px.py first.
_base_ = [
    '../../_base_/models/tinymim_vit-micro-p8.py',
    '../../_base_/datasets/tiny-imagenet_tinymim_64px.py',
    '../../_base_/schedules/pretrain_mini.py',
    '../../_base_/mimhd_runtime.py',
]

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=4, by_epoch=True, begin=1, end=5, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=5)
default_hooks = dict(checkpoint=dict(interval=1))
