# UperNet on a ViT-S student (deit-small: 384 wide, 6 heads); the head is as wide as the backbone, as in G2SD.
_base_ = './upernet_vit-base.py'
model = dict(
    backbone=dict(
        arch='deit-small',
        init_cfg=dict(checkpoint='work_dirs/mimhd_vit-small-p16_8xb512-amp-coslr-100e_in1k/epoch_100.pth')),
    neck=dict(embed_dim=384),
    decode_head=dict(in_channels=[384, 384, 384, 384], channels=384),
    auxiliary_head=dict(in_channels=384))
