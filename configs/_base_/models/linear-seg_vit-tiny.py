# A linear layer on a frozen ViT-Ti student (deit-tiny: 192 wide, 3 heads), for segmentation.
_base_ = './linear-seg_vit-base.py'
model = dict(
    backbone=dict(
        arch='deit-tiny',
        init_cfg=dict(checkpoint='work_dirs/mimhd_vit-tiny-p16_8xb512-amp-coslr-100e_in1k/epoch_100.pth')),
    decode_head=dict(in_channels=[192, 192, 192, 192], channels=192))
