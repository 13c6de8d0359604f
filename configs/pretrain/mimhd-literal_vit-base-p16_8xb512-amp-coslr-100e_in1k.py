# MIM-HD as printed (mimhd-literal), ViT-B student, otherwise as mimhd_vit-base-p16_8xb512-amp-coslr-100e_in1k.py.
# Command: bash tools/dist_train.sh configs/pretrain/mimhd-literal_vit-base-p16_8xb512-amp-coslr-100e_in1k.py 8
# Time: not run. Result: not run (paper: 84.8 top-1 after fine-tuning, 50.7 mIoU on ADE20K).
_base_ = [
    '../_base_/models/mimhd-literal_vit-base-p16.py',
    '../_base_/datasets/imagenet_224px.py',
    '../_base_/schedules/pretrain_adamw-coslr-100e.py',
    '../_base_/mimhd_runtime.py',
]
