# MIM-HD, ViT-Ti student (deit-tiny in mmpretrain's names), otherwise as ViT-B: Table 1.
# Command: bash tools/dist_train.sh configs/pretrain/mimhd_vit-tiny-p16_8xb512-amp-coslr-100e_in1k.py 8
# Time: not run. Result: not run (paper: 75.7 top-1 after fine-tuning, 43.2 mIoU on ADE20K).
_base_ = './mimhd_vit-base-p16_8xb512-amp-coslr-100e_in1k.py'
model = dict(backbone=dict(arch='deit-tiny'))
