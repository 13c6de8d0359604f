# A linear layer for segmentation: AdamW at 1e-3 for batch 16, weight decay 1e-4, 1,500 iterations of warm-up, then linear
# to 0 over 40,000 (DINOv2's linear evaluation on ADE20K).
_base_ = './schedule_160k.py'
optim_wrapper = dict(
    _delete_=True, type='AmpOptimWrapper', loss_scale='dynamic', dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=1e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', eta_min=0., power=1., by_epoch=False, begin=1500, end=40000),
]
train_cfg = dict(max_iters=40000, val_interval=4000)
