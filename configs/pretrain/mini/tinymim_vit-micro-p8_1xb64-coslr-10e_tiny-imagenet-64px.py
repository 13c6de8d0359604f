# TinyMIM in miniature, for twice the epochs of the mini MIM-HD, which is at least its hours. 10: our choice.
# Command: python tools/train.py configs/pretrain/mini/tinymim_vit-micro-p8_1xb64-coslr-10e_tiny-imagenet-64px.py
# Needs the teacher: configs/pretrain/mini/mae_vit-mini-p8_1xb64-coslr-20e_tiny-imagenet-64px.py first.
_base_ = './tinymim_vit-micro-p8_1xb64-coslr-5e_tiny-imagenet-64px.py'

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=9, by_epoch=True, begin=1, end=10, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=10)
