# ViT-B distilled by MIM-HD for 100 epochs, fine-tuned on ImageNet-1K: Table 1's first row. The paper gives no
# fine-tuning settings; these are MAE ViT-B's (FINETUNE.md), which TinyMIM shares but for a drop path of 0.2.
# Command: bash tools/dist_train.sh configs/finetune/vit-base-p16_mimhd-100e-pre_8xb128-amp-coslr-100e_in1k.py 8
# Time: not run. Result: not run (paper: 84.8 top-1).
_base_ = [
    '../_base_/models/finetune_vit-base-p16.py',
    '../_base_/datasets/imagenet_finetune_224px.py',
    '../_base_/schedules/finetune_adamw-coslr-100e.py',
    '../_base_/finetune_runtime.py',
]
