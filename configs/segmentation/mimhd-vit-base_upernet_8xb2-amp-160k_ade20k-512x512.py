# UperNet, ViT-B pre-trained by MIM-HD, ADE20K at 512 px, 160,000 iterations: Table 1's first row.
# Settings are TinyMIM's, since the paper gives none. Sizes and mirror images are averaged with tools/test.py --tta.
# Command: bash tools/dist_train.sh configs/segmentation/mimhd-vit-base_upernet_8xb2-amp-160k_ade20k-512x512.py 8
# Another checkpoint: --cfg-options model.backbone.init_cfg.checkpoint=FILE
# Time: not run. Result: not run (paper: 50.7 mIoU).
_base_ = [
    '../_base_/models/upernet_vit-base.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/schedule_160k.py',
    '../_base_/mmseg_runtime.py',
]
