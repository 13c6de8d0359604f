# A linear layer on the untrained mini student's frozen random weights: what the architecture alone is worth.
# Command: python tools/train.py configs/finetune/mini/vit-micro-p8_1xb256-linear-coslr-20e_tiny-imagenet-64px.py
# Time: not run. Result: not run.
_base_ = './vit-micro-p8_mimhd-5e-pre_1xb256-linear-coslr-20e_tiny-imagenet-64px.py'
model = dict(backbone=dict(init_cfg=None))
