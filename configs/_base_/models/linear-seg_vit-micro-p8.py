# A linear layer on the frozen mini student (96 wide, 8 blocks, 6 heads, 8 px patches), for crops of 128 px.
_base_ = './linear-seg_vit-base.py'
model = dict(
    data_preprocessor=dict(size=(128, 128), test_cfg=dict(size_divisor=8)),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=96, num_layers=8, num_heads=6, feedforward_channels=384),
        img_size=(128, 128), patch_size=8, frozen_stages=8, out_indices=[1, 3, 5, 7],
        init_cfg=dict(checkpoint='work_dirs/mimhd_vit-micro-p8_1xb64-coslr-5e_tiny-imagenet-64px/epoch_5.pth')),
    decode_head=dict(in_channels=[96, 96, 96, 96], channels=96, num_classes=11),
    test_cfg=dict(crop_size=(128, 128), stride=(85, 85)))
