# A plain ViT-B classifier on the averaged patch tokens, as MAE is fine-tuned (FINETUNE.md; mmpretrain's
# mae/benchmarks): the student's last norm is left out, a new one follows the average (`ln2`, the only tensor of the
# backbone that its file does not hold). Positions start as loaded and are trained. Drop path 0.1, mixup 0.8,
# cutmix 1.0, label smoothing 0.1: MAE. Children change `backbone.arch` and `head.in_channels`.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='VisionTransformer', arch='base', img_size=224, patch_size=16, drop_path_rate=0.1,
        out_type='avg_featmap', final_norm=False,
        init_cfg=dict(
            type='Pretrained', prefix='backbone.',
            checkpoint='work_dirs/mimhd_vit-base-p16_8xb512-amp-coslr-100e_in1k/epoch_100.pth')),
    head=dict(
        type='LinearClsHead', num_classes=1000, in_channels=768,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=[dict(type='TruncNormal', layer='Linear', std=2e-5)]),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]))
