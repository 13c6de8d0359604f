# Minutes on two CPU cores: 1,000 iterations of 8 crops, in float32. Learning rate, layer decay and warm-up: our choice.
_base_ = './schedule_160k.py'
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='mimhd_mm.BackboneLayerDecayConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.85))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=100),
    dict(type='PolyLR', eta_min=0., power=1., by_epoch=False, begin=100, end=1000),
]
train_cfg = dict(max_iters=1000, val_interval=500)
auto_scale_lr = dict(base_batch_size=8)
sync_bn = None
