# LARS at 6.4 for a batch of 16384 without weight decay, 90 epochs with a cosine, 10 of warm-up: MAE (FINETUNE.md, and
# mmpretrain's mae/benchmarks). bf16; for cards without it: --cfg-options optim_wrapper.dtype=float16
optim_wrapper = dict(
    type='GuardedAmpOptimWrapper', loss_scale='dynamic', dtype='bfloat16',
    optimizer=dict(type='LARS', lr=6.4, momentum=0.9, weight_decay=0.))

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=80, by_epoch=True, begin=10, end=90, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=90, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=16384)
