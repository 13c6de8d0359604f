# AdamW as in MAE (betas, weight decay, none on norms, biases and tokens), as one kernel; lr and warm-up for some
# thousand steps of 64 images: our choice. A child sets `train_cfg.max_epochs` and the scheduler's `T_max` and `end`.
optim_wrapper = dict(
    type='GuardedOptimWrapper',
    optimizer=dict(type='mimhd_mm.FusedAdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05),
    clip_grad=dict(max_norm=3.0),
    paramwise_cfg=dict(
        norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0,
        custom_keys=dict(pos_embed=dict(decay_mult=0.), cls_token=dict(decay_mult=0.), mask_token=dict(decay_mult=0.))))

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=19, by_epoch=True, begin=1, end=20, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=20)
auto_scale_lr = dict(base_batch_size=64)
