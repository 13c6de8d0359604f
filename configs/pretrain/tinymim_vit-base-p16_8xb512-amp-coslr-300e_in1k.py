# TinyMIM, ViT-B student, MAE ViT-L teacher, ImageNet-1K, 300 epochs: Table 1's baseline.
# Command: bash tools/dist_train.sh configs/pretrain/tinymim_vit-base-p16_8xb512-amp-coslr-300e_in1k.py 8
# Time: not run. Result: not run (MIM-HD's paper: 84.5 top-1 after fine-tuning, 50.3 mIoU on ADE20K).
_base_ = [
    '../_base_/models/tinymim_vit-base-p16.py',
    '../_base_/datasets/imagenet_tinymim_224px.py',
    '../_base_/schedules/tinymim_adamw-coslr-300e.py',
    '../_base_/mimhd_runtime.py',
]
