# UperNet on the mini student that TinyMIM has distilled for 15 epochs, CamVid; its last block has 8 heads.
# Command: python tools/train.py configs/segmentation/mini/tinymim-vit-micro-p8_upernet_1xb8-1k_camvid-128x128.py
# Needs the student: configs/pretrain/mini/tinymim_vit-micro-p8_1xb64-coslr-15e_tiny-imagenet-64px.py first.
# Time: not run. Result: not run.
_base_ = './mimhd-vit-micro-p8_upernet_1xb8-1k_camvid-128x128.py'
model = dict(
    backbone=dict(
        layer_cfgs=[dict()] * 7 + [dict(num_heads=8)],
        init_cfg=dict(checkpoint='work_dirs/tinymim_vit-micro-p8_1xb64-coslr-15e_tiny-imagenet-64px/epoch_15.pth')))
