# The mini student's network from scratch, with the settings of the distilled one: what pre-training is worth.
# Command: python tools/train.py configs/finetune/mini/vit-micro-p8_1xb64-coslr-10e_tiny-imagenet-64px.py
# Time: not run. Result: not run.
_base_ = './vit-micro-p8_mimhd-5e-pre_1xb64-coslr-10e_tiny-imagenet-64px.py'
model = dict(backbone=dict(init_cfg=None))
