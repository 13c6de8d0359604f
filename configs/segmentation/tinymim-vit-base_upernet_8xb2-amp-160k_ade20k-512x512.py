# UperNet, ViT-B pre-trained by TinyMIM, ADE20K at 512 px, 160,000 iterations: Table 1. Its last block keeps the 16
# heads it was distilled with; otherwise as for MIM-HD.
# Command: bash tools/dist_train.sh configs/segmentation/tinymim-vit-base_upernet_8xb2-amp-160k_ade20k-512x512.py 8
# Time: not run. Result: not run (MIM-HD's paper: 50.3 mIoU).
_base_ = './mimhd-vit-base_upernet_8xb2-amp-160k_ade20k-512x512.py'
model = dict(
    backbone=dict(
        layer_cfgs=[dict()] * 11 + [dict(num_heads=16)],
        init_cfg=dict(checkpoint='work_dirs/tinymim_vit-base-p16_8xb512-amp-coslr-300e_in1k/epoch_300.pth')))
