# UperNet on a ViT-B student: a student's checkpoint loads as it is. Neck, heads, out_indices and drop path are those
# of TinyMIM, G2SD and mmsegmentation's mae-base_upernet; the backbone's last norm is left out as it is there.
#
# The backbone, in one line of a child or of the command line:
#     plain ViT, absolute positions:          model.backbone.type=mmpretrain.VisionTransformer
#     plus relative position bias from zero:  model.backbone.type=mimhd_mm.RelPosViT     (as MAE and TinyMIM publish)
# A TinyMIM student needs the head count of its last block too: model.backbone.layer_cfgs, a list of a dict a block.
#
# The norm is BN; `sync_bn` of the schedule makes it SyncBN in a run on several GPUs.
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True,
        pad_val=0, seg_pad_val=255, size=(512, 512),
        test_cfg=dict(size_divisor=16)),  # whole patches: padded for the backbone, cut off again after it
    backbone=dict(
        type='mmpretrain.VisionTransformer', arch='base', img_size=(512, 512), patch_size=16, drop_path_rate=0.1,
        out_type='featmap', out_indices=[3, 5, 7, 11], final_norm=False,
        init_cfg=dict(
            type='Pretrained', prefix='backbone.',
            checkpoint='work_dirs/mimhd_vit-base-p16_8xb512-amp-coslr-100e_in1k/epoch_100.pth')),
    neck=dict(type='Feature2Pyramid', embed_dim=768, rescales=[4, 2, 1, 0.5], norm_cfg=dict(type='BN')),
    decode_head=dict(
        type='UPerHead', in_channels=[768, 768, 768, 768], in_index=[0, 1, 2, 3], pool_scales=(1, 2, 3, 6),
        channels=768, dropout_ratio=0.1, num_classes=150, norm_cfg=dict(type='BN'), align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
    auxiliary_head=dict(
        type='FCNHead', in_channels=768, in_index=2, channels=256, num_convs=1, concat_input=False,
        dropout_ratio=0.1, num_classes=150, norm_cfg=dict(type='BN'), align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4)),
    train_cfg=dict(),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)))
