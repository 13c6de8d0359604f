# A linear layer on the frozen mini student, otherwise as linear_vit-base-p16.py. An untrained student is
# `init_cfg=None`: its random weights are frozen the same way.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='VisionTransformer', img_size=64, patch_size=8, frozen_stages=8,
        arch=dict(embed_dims=96, num_layers=8, num_heads=6, feedforward_channels=384),
        out_type='avg_featmap', final_norm=True,
        init_cfg=dict(
            type='Pretrained', prefix='backbone.',
            checkpoint='work_dirs/mimhd_vit-micro-p8_1xb64-coslr-5e_tiny-imagenet-64px/epoch_5.pth')),
    neck=dict(type='ClsBatchNormNeck', input_features=96),
    head=dict(
        type='LinearClsHead', num_classes=200, in_channels=96,
        loss=dict(type='CrossEntropyLoss'),
        init_cfg=[dict(type='TruncNormal', layer='Linear', std=0.01)]))
