# A linear layer on a frozen ViT-Ti (deit-tiny), otherwise as ViT-B.
# Command: bash tools/dist_train.sh configs/finetune/vit-tiny-p16_mimhd-100e-pre_8xb2048-amp-linear-coslr-90e_in1k.py 8
# Time: not run. Result: not run (not in the paper).
_base_ = './vit-base-p16_mimhd-100e-pre_8xb2048-amp-linear-coslr-90e_in1k.py'
model = dict(
    backbone=dict(
        arch='deit-tiny',
        init_cfg=dict(checkpoint='work_dirs/mimhd_vit-tiny-p16_8xb512-amp-coslr-100e_in1k/epoch_100.pth')),
    neck=dict(input_features=192),
    head=dict(in_channels=192))
