# AdamW at 2e-3 for a batch of 1024 with a cosine for 100 epochs, 5 of warm-up, down to 1e-6, weight decay 0.05 (none
# on norms, biases, positions and tokens), rate falling by 0.65 a block: MAE ViT-B (FINETUNE.md, and mmpretrain's
# mae/benchmarks). The paper gives none of it. bf16; for cards without it: --cfg-options optim_wrapper.dtype=float16
optim_wrapper = dict(
    type='GuardedAmpOptimWrapper', loss_scale='dynamic', dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=2e-3, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='BackboneLayerDecayConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.65))

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=95, by_epoch=True, begin=5, end=100, eta_min=1e-6,
         convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=1024)
