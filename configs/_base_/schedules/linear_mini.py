# Twenty epochs of 256 images a step on a small machine: AdamW at 3e-3 without weight decay, 1 epoch of warm-up. LARS is
# for batches of thousands. All of it: our choice.
optim_wrapper = dict(
    type='GuardedOptimWrapper', optimizer=dict(type='AdamW', lr=3e-3, betas=(0.9, 0.999), weight_decay=0.))

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=19, by_epoch=True, begin=1, end=20, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=20, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=256)
