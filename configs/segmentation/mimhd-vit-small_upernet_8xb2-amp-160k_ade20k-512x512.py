# UperNet, ViT-S pre-trained by MIM-HD, ADE20K at 512 px, 160,000 iterations: Table 1. Settings are ViT-B's: our choice.
# Command: bash tools/dist_train.sh configs/segmentation/mimhd-vit-small_upernet_8xb2-amp-160k_ade20k-512x512.py 8
# Time: not run. Result: not run (paper: 47.6 mIoU).
_base_ = [
    '../_base_/models/upernet_vit-small.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/schedule_160k.py',
    '../_base_/mmseg_runtime.py',
]
