# MIM-HD, ViT-S student (deit-small in mmpretrain's names), otherwise as ViT-B: Table 1.
# Command: bash tools/dist_train.sh configs/pretrain/mimhd_vit-small-p16_8xb512-amp-coslr-100e_in1k.py 8
# Time: not run. Result: not run (paper: 82.3 top-1 after fine-tuning, 47.6 mIoU on ADE20K).
_base_ = './mimhd_vit-base-p16_8xb512-amp-coslr-100e_in1k.py'
model = dict(backbone=dict(arch='deit-small'))
