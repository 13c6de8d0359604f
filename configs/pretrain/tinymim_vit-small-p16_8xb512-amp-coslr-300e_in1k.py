# TinyMIM, ViT-S student (deit-small; 16 heads of 24 in its last block), otherwise as ViT-B: Table 1.
# Command: bash tools/dist_train.sh configs/pretrain/tinymim_vit-small-p16_8xb512-amp-coslr-300e_in1k.py 8
# Time: not run. Result: not run (MIM-HD's paper: 82.3 top-1 after fine-tuning, 46.8 mIoU on ADE20K).
_base_ = './tinymim_vit-base-p16_8xb512-amp-coslr-300e_in1k.py'
model = dict(backbone=dict(arch='deit-small'))
