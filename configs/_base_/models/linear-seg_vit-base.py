# A linear layer on a frozen ViT-B, for segmentation: four blocks' tokens side by side, a 1 x 1 convolution with a norm and
# without activation (mmsegmentation's FCNHead has its norm there), and one more for the classes, which together are
# linear at evaluation. Four blocks because a student that was distilled by its last block's attention alone has not
# trained what follows it: our choice. The norm is BN; `sync_bn` of the schedule makes it SyncBN.
_base_ = './upernet_vit-base.py'
model = dict(
    backbone=dict(frozen_stages=12, out_indices=[2, 5, 8, 11], drop_path_rate=0.),
    neck=None,
    decode_head=dict(
        _delete_=True, type='FCNHead', in_channels=[768, 768, 768, 768], in_index=[0, 1, 2, 3],
        input_transform='resize_concat', channels=768, num_convs=1, kernel_size=1, concat_input=False, act_cfg=None,
        dropout_ratio=0., num_classes=150, norm_cfg=dict(type='BN'), align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
    auxiliary_head=None)
