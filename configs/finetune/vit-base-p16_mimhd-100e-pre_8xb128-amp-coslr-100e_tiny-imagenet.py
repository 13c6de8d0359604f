# ViT-B distilled by MIM-HD on Tiny ImageNet at 224 px and fine-tuned there, with ImageNet's settings: our choice, the
# paper gives none.
# Command: bash tools/dist_train.sh configs/finetune/vit-base-p16_mimhd-100e-pre_8xb128-amp-coslr-100e_tiny-imagenet.py 8
# Time: not run. Result: not run.
_base_ = [
    '../_base_/models/finetune_vit-base-p16.py',
    '../_base_/datasets/tiny-imagenet_finetune_224px.py',
    '../_base_/schedules/finetune_adamw-coslr-100e.py',
    '../_base_/finetune_runtime.py',
]
model = dict(
    backbone=dict(init_cfg=dict(
        checkpoint='work_dirs/mimhd_vit-base-p16_8xb128-amp-coslr-100e_tiny-imagenet/epoch_100.pth')),
    head=dict(num_classes=200))
