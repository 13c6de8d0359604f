# A linear layer on a frozen ViT-B that MIM-HD has distilled for 100 epochs, ImageNet-1K; settings are MAE's
# (FINETUNE.md).
# Command: bash tools/dist_train.sh configs/finetune/vit-base-p16_mimhd-100e-pre_8xb2048-amp-linear-coslr-90e_in1k.py 8
# Time: not run. Result: not run (not in the paper).
_base_ = [
    '../_base_/models/linear_vit-base-p16.py',
    '../_base_/datasets/imagenet_linear_224px.py',
    '../_base_/schedules/linear_lars-coslr-90e.py',
    '../_base_/finetune_runtime.py',
]
