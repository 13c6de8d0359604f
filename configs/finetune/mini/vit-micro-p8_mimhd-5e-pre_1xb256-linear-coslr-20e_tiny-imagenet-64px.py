# A linear layer on the frozen mini student that MIM-HD has distilled for 5 epochs, Tiny ImageNet at 64 px.
# Command: python tools/train.py configs/finetune/mini/vit-micro-p8_mimhd-5e-pre_1xb256-linear-coslr-20e_tiny-imagenet-64px.py
# Needs the student: configs/pretrain/mini/mimhd_vit-micro-p8_1xb64-coslr-5e_tiny-imagenet-64px.py first.
# Time: not run. Result: not run.
_base_ = [
    '../../_base_/models/linear_vit-micro-p8.py',
    '../../_base_/datasets/tiny-imagenet_finetune_64px.py',
    '../../_base_/schedules/linear_mini.py',
    '../../_base_/finetune_runtime.py',
]
train_dataloader = dict(batch_size=256)
