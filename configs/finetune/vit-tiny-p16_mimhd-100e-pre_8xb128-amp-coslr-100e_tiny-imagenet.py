# ViT-Ti (deit-tiny) distilled by MIM-HD on Tiny ImageNet at 224 px and fine-tuned there; lr and decay as on
# ImageNet-1K.
# Command: bash tools/dist_train.sh configs/finetune/vit-tiny-p16_mimhd-100e-pre_8xb128-amp-coslr-100e_tiny-imagenet.py 8
# Time: not run. Result: not run.
_base_ = './vit-base-p16_mimhd-100e-pre_8xb128-amp-coslr-100e_tiny-imagenet.py'
model = dict(
    backbone=dict(
        arch='deit-tiny',
        init_cfg=dict(checkpoint='work_dirs/mimhd_vit-tiny-p16_8xb128-amp-coslr-100e_tiny-imagenet/epoch_100.pth')),
    head=dict(in_channels=192))
optim_wrapper = dict(optimizer=dict(lr=4e-3), paramwise_cfg=dict(layer_decay_rate=0.85))
