# MIM-HD as printed (mimhd-literal), ViT-B student, otherwise as mimhd_vit-base-p16_8xb128-amp-coslr-100e_tiny-imagenet.py.
# Command: bash tools/dist_train.sh configs/pretrain/mimhd-literal_vit-base-p16_8xb128-amp-coslr-100e_tiny-imagenet.py 8
# Time: not run. Result: not run (paper: 79.7 top-1 after fine-tuning, 41.0 mIoU on ADE20K).
_base_ = [
    '../_base_/models/mimhd-literal_vit-base-p16.py',
    '../_base_/datasets/tiny-imagenet_224px.py',
    '../_base_/schedules/pretrain_adamw-coslr-100e.py',
    '../_base_/mimhd_runtime.py',
]
auto_scale_lr = dict(base_batch_size=1024)
