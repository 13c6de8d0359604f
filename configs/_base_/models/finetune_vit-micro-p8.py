# The mini student's classifier: 96 wide, 8 blocks, 6 heads, 64 px images in 8 px patches; averaged patch tokens with a
# new norm, as ViT-B's. No drop path, no mixup, label smoothing 0.1: our choice for ten epochs.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='VisionTransformer', img_size=64, patch_size=8, drop_path_rate=0.,
        arch=dict(embed_dims=96, num_layers=8, num_heads=6, feedforward_channels=384),
        out_type='avg_featmap', final_norm=False,
        init_cfg=dict(
            type='Pretrained', prefix='backbone.',
            checkpoint='work_dirs/mimhd_vit-micro-p8_1xb64-coslr-5e_tiny-imagenet-64px/epoch_5.pth')),
    head=dict(
        type='LinearClsHead', num_classes=200, in_channels=96,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=[dict(type='TruncNormal', layer='Linear', std=2e-5)]))
