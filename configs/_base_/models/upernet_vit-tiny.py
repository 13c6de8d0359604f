# UperNet on a ViT-Ti student (deit-tiny: 192 wide, 3 heads); the head is as wide as the backbone, as in G2SD and
# TinyMIM*-T's light variant.
_base_ = './upernet_vit-base.py'
model = dict(
    backbone=dict(
        arch='deit-tiny',
        init_cfg=dict(checkpoint='work_dirs/mimhd_vit-tiny-p16_8xb512-amp-coslr-100e_in1k/epoch_100.pth')),
    neck=dict(embed_dim=192),
    decode_head=dict(in_channels=[192, 192, 192, 192], channels=192),
    auxiliary_head=dict(in_channels=192))
