# A linear layer on the frozen ViT-S that MIM-HD has pre-trained, ADE20K at 512 px, 40,000 iterations. Not in the paper.
# Command: bash tools/dist_train.sh configs/segmentation/mimhd-vit-small_linear_8xb2-amp-40k_ade20k-512x512.py 8
# Time: not run. Result: not run.
_base_ = [
    '../_base_/models/linear-seg_vit-small.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/schedule_linear-seg-40k.py',
    '../_base_/mmseg_runtime.py',
]
default_hooks = dict(checkpoint=dict(interval=4000))
