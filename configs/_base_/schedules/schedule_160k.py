# AdamW at 1e-4 for batch 16, weight decay, betas, 1,500 iterations of warm-up, then linear to 0 over 160,000; layer
# decay .75, no clipping: TinyMIM's upernet_mae_base_12_512_slide_160k_ade20k.py (mmsegmentation's MAE and G2SD: .65).
# bf16; for cards without it: --cfg-options optim_wrapper.dtype=float16
# Less memory: train_dataloader.batch_size=1 optim_wrapper.accumulative_counts=2 keeps the images of a step, and then
# 160,000 iterations are 80,000 steps; or halve the batch and pass --auto-scale-lr.
optim_wrapper = dict(
    type='AmpOptimWrapper', loss_scale='dynamic', dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='mimhd_mm.BackboneLayerDecayConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.75))

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', eta_min=0., power=1., by_epoch=False, begin=1500, end=160000),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=160000, val_interval=16000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(base_batch_size=16)

# BN becomes SyncBN where a run has several processes. SyncBN needs GPUs: on CPUs, --cfg-options sync_bn=None
sync_bn = 'torch'
