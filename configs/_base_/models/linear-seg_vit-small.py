# A linear layer on a frozen ViT-S student (deit-small: 384 wide, 6 heads), for segmentation.
_base_ = './linear-seg_vit-base.py'
model = dict(
    backbone=dict(
        arch='deit-small',
        init_cfg=dict(checkpoint='work_dirs/mimhd_vit-small-p16_8xb512-amp-coslr-100e_in1k/epoch_100.pth')),
    decode_head=dict(in_channels=[384, 384, 384, 384], channels=384))
