# A linear layer on a frozen ViT-B, with a BatchNorm that has no weights before it (MAE, FINETUNE.md). The feature is
# the average of the patch tokens after the student's last norm, normalised once more by a `ln2` that keeps its start
# (ones and zeros); MAE takes the [class] token, and MIM-HD's relations leave that out: our choice. Children change
# `backbone.arch`, `neck.input_features` and `head.in_channels`.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='VisionTransformer', arch='base', img_size=224, patch_size=16, frozen_stages=12,
        out_type='avg_featmap', final_norm=True,
        init_cfg=dict(
            type='Pretrained', prefix='backbone.',
            checkpoint='work_dirs/mimhd_vit-base-p16_8xb512-amp-coslr-100e_in1k/epoch_100.pth')),
    neck=dict(type='ClsBatchNormNeck', input_features=768),
    head=dict(
        type='LinearClsHead', num_classes=1000, in_channels=768,
        loss=dict(type='CrossEntropyLoss'),
        init_cfg=[dict(type='TruncNormal', layer='Linear', std=0.01)]))
