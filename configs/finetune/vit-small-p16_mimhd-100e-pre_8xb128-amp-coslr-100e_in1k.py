# ViT-S (deit-small in mmpretrain's names) distilled by MIM-HD for 100 epochs, fine-tuned on ImageNet-1K: Table 1. No
# file of MAE or TinyMIM fine-tunes this size; an lr of 4e-3 and 0.75 as G2SD fine-tunes its ViT-S, over 100 epochs
# (there 200), drop path as for ViT-B: our choice.
# Command: bash tools/dist_train.sh configs/finetune/vit-small-p16_mimhd-100e-pre_8xb128-amp-coslr-100e_in1k.py 8
# Time: not run. Result: not run (paper: 82.3 top-1).
_base_ = './vit-base-p16_mimhd-100e-pre_8xb128-amp-coslr-100e_in1k.py'
model = dict(
    backbone=dict(
        arch='deit-small',
        init_cfg=dict(checkpoint='work_dirs/mimhd_vit-small-p16_8xb512-amp-coslr-100e_in1k/epoch_100.pth')),
    head=dict(in_channels=384))
optim_wrapper = dict(optimizer=dict(lr=4e-3), paramwise_cfg=dict(layer_decay_rate=0.75))
