# ViT-Ti (deit-tiny in mmpretrain's names) distilled by MIM-HD for 100 epochs, fine-tuned on ImageNet-1K: Table 1. No
# file of MAE or TinyMIM fine-tunes this size; an lr of 4e-3 and 0.85 as MAE-Lite fine-tunes its ViT-Ti over 100
# epochs: our choice.
# Command: bash tools/dist_train.sh configs/finetune/vit-tiny-p16_mimhd-100e-pre_8xb128-amp-coslr-100e_in1k.py 8
# Time: not run. Result: not run (paper: 75.7 top-1).
_base_ = './vit-base-p16_mimhd-100e-pre_8xb128-amp-coslr-100e_in1k.py'
model = dict(
    backbone=dict(
        arch='deit-tiny',
        init_cfg=dict(checkpoint='work_dirs/mimhd_vit-tiny-p16_8xb512-amp-coslr-100e_in1k/epoch_100.pth')),
    head=dict(in_channels=192))
optim_wrapper = dict(optimizer=dict(lr=4e-3), paramwise_cfg=dict(layer_decay_rate=0.85))
