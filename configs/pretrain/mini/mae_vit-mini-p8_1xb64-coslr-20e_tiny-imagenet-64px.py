# The mini teacher: MAE on Tiny ImageNet at 64 px.
# Command: python tools/train.py configs/pretrain/mini/mae_vit-mini-p8_1xb64-coslr-20e_tiny-imagenet-64px.py
_base_ = [
    '../../_base_/models/mae_vit-mini-p8.py',
    '../../_base_/datasets/tiny-imagenet_64px.py',
    '../../_base_/schedules/pretrain_mini.py',
    '../../_base_/default_runtime.py',
]
default_hooks = dict(checkpoint=dict(interval=2))
