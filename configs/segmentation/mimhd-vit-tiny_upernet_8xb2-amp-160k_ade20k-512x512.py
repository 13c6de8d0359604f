# UperNet, ViT-Ti pre-trained by MIM-HD, ADE20K at 512 px, 160,000 iterations: Table 1. Layer decay .8 is TinyMIM*-T's,
# no drop path is our choice; the rest is ViT-B's.
# Command: bash tools/dist_train.sh configs/segmentation/mimhd-vit-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py 8
# Time: not run. Result: not run (paper: 43.2 mIoU).
_base_ = [
    '../_base_/models/upernet_vit-tiny.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/schedule_160k.py',
    '../_base_/mmseg_runtime.py',
]
model = dict(backbone=dict(drop_path_rate=0.))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.8))
