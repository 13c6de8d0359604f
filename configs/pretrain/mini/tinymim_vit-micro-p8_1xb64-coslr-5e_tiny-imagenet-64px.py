# TinyMIM in miniature, for the epochs of the mini MIM-HD and with its schedule. Drop path and colour jitter are
# TinyMIM's.
# Command: python tools/train.py configs/pretrain/mini/tinymim_vit-micro-p8_1xb64-coslr-5e_tiny-imagenet-64px.py
# Needs the teacher: configs/pretrain/mini/mae_vit-mini-p8_1xb64-coslr-20e_tiny-imagenet-64px.py first.
_base_ = [
    '../../_base_/models/tinymim_vit-micro-p8.py',
    '../../_base_/datasets/tiny-imagenet_tinymim_64px.py',
    '../../_base_/schedules/pretrain_mini-5e.py',
    '../../_base_/mimhd_runtime.py',
]
default_hooks = dict(checkpoint=dict(interval=1))
