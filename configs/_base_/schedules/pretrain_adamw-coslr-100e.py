# AdamW at 1.5e-3 with a cosine for 100 epochs (paper). Batch 4096, betas, weight decay, none on norms, biases and
# tokens: TinyMIM's main_pretrain.py. Warm-up of 10 epochs and clipping at 3: our choice (G2SD's; TinyMIM has 15 of
# 300 and no clipping). FusedAdamW is AdamW as one kernel. bf16; for cards without it: --cfg-options
# optim_wrapper.dtype=float16 model.target_generator.dtype=float16
optim_wrapper = dict(
    type='GuardedAmpOptimWrapper', loss_scale='dynamic', dtype='bfloat16',
    optimizer=dict(type='mimhd_mm.FusedAdamW', lr=1.5e-3, betas=(0.9, 0.95), weight_decay=0.05),
    clip_grad=dict(max_norm=3.0),
    paramwise_cfg=dict(
        norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0,
        custom_keys=dict(pos_embed=dict(decay_mult=0.), cls_token=dict(decay_mult=0.), mask_token=dict(decay_mult=0.))))

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=90, by_epoch=True, begin=10, end=100, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100)
auto_scale_lr = dict(base_batch_size=4096)
