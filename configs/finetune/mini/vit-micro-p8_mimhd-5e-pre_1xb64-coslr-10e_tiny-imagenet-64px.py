# The mini student that MIM-HD has distilled for 5 epochs, fine-tuned on Tiny ImageNet at 64 px.
# Command: python tools/train.py configs/finetune/mini/vit-micro-p8_mimhd-5e-pre_1xb64-coslr-10e_tiny-imagenet-64px.py
# Needs the student: configs/pretrain/mini/mimhd_vit-micro-p8_1xb64-coslr-5e_tiny-imagenet-64px.py first.
# Time: not run. Result: not run.
_base_ = [
    '../../_base_/models/finetune_vit-micro-p8.py',
    '../../_base_/datasets/tiny-imagenet_finetune_64px.py',
    '../../_base_/schedules/finetune_mini.py',
    '../../_base_/finetune_runtime.py',
]
