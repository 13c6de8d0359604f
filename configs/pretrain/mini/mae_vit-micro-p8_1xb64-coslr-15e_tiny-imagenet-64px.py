# MAE of the mini student's size without a teacher, for three times the epochs of the mini MIM-HD: our choice.
# Command: python tools/train.py configs/pretrain/mini/mae_vit-micro-p8_1xb64-coslr-15e_tiny-imagenet-64px.py
_base_ = [
    '../../_base_/models/mae_vit-micro-p8.py',
    '../../_base_/datasets/tiny-imagenet_64px.py',
    '../../_base_/schedules/pretrain_mini.py',
    '../../_base_/default_runtime.py',
]

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=14, by_epoch=True, begin=1, end=15, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=15)
default_hooks = dict(checkpoint=dict(interval=5))
