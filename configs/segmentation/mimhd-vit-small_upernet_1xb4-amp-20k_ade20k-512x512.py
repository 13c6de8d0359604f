# UperNet, ViT-S pre-trained by MIM-HD, ADE20K at 512 px, 20,000 iterations on one GPU. Not in the paper: our choice.
# Command: python tools/train.py configs/segmentation/mimhd-vit-small_upernet_1xb4-amp-20k_ade20k-512x512.py
# Time: not run. Result: not run.
_base_ = [
    '../_base_/models/upernet_vit-small.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/schedule_20k.py',
    '../_base_/mmseg_runtime.py',
]
train_dataloader = dict(batch_size=4)
default_hooks = dict(checkpoint=dict(interval=4000))
