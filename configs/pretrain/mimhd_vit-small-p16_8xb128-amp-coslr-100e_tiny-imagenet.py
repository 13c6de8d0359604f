# MIM-HD, ViT-S student, pre-trained on Tiny ImageNet at 224 px; otherwise as ViT-B. Not in the paper.
# Command: bash tools/dist_train.sh configs/pretrain/mimhd_vit-small-p16_8xb128-amp-coslr-100e_tiny-imagenet.py 8
# Time: not run. Result: not run.
_base_ = './mimhd_vit-base-p16_8xb128-amp-coslr-100e_tiny-imagenet.py'
model = dict(backbone=dict(arch='deit-small'))
