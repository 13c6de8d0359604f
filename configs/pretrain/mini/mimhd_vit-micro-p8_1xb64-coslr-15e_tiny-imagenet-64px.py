# MIM-HD in miniature, for as many epochs as the longest mini TinyMIM. 15: our choice.
# Command: python tools/train.py configs/pretrain/mini/mimhd_vit-micro-p8_1xb64-coslr-15e_tiny-imagenet-64px.py
# Needs the teacher: configs/pretrain/mini/mae_vit-mini-p8_1xb64-coslr-20e_tiny-imagenet-64px.py first.
_base_ = './mimhd_vit-micro-p8_1xb64-coslr-5e_tiny-imagenet-64px.py'

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=14, by_epoch=True, begin=1, end=15, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=15)
