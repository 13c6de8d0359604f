# A linear layer on the frozen mini MIM-HD student, CamVid: what its patches know of a scene.
# Command: python tools/train.py configs/segmentation/mini/mimhd-vit-micro-p8_linear_1xb8-1600_camvid-128x128.py
# Needs the student: configs/pretrain/mini/mimhd_vit-micro-p8_1xb64-coslr-5e_tiny-imagenet-64px.py first. An untrained
# one for comparison: --cfg-options model.backbone.init_cfg=None
# Time: not run. Result: not run; a quarter of it is the "linear mIoU" of docs/evidence.md.
_base_ = [
    '../../_base_/models/linear-seg_vit-micro-p8.py',
    '../../_base_/datasets/camvid.py',
    '../../_base_/schedules/schedule_linear-seg-40k.py',
    '../../_base_/mmseg_runtime.py',
]
# a twenty-fifth of the steps at five times the rate, in float32: our choice
optim_wrapper = dict(
    _delete_=True, type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-3, betas=(0.9, 0.999), weight_decay=1e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=80),
    dict(type='PolyLR', eta_min=0., power=1., by_epoch=False, begin=80, end=1600),
]
train_cfg = dict(max_iters=1600, val_interval=1600)
auto_scale_lr = dict(base_batch_size=8)
sync_bn = None
default_hooks = dict(checkpoint=dict(interval=1600))
