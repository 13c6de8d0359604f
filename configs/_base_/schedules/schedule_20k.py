# For small machines: 20,000 iterations of 4 images on one GPU. Learning rate 5e-5 (1e-4 of batch 16, scaled by the
# square root of the batch), 500 iterations of warm-up: our choice. The rest is the long schedule's.
_base_ = './schedule_160k.py'
optim_wrapper = dict(optimizer=dict(lr=5e-5))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=500),
    dict(type='PolyLR', eta_min=0., power=1., by_epoch=False, begin=500, end=20000),
]
train_cfg = dict(max_iters=20000, val_interval=4000)
auto_scale_lr = dict(base_batch_size=4)
