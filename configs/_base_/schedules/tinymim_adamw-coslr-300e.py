# AdamW at 1.5e-4 * 4096 / 256 for 300 epochs with 15 of warm-up, a cosine to 0 and no clipping: TinyMIM's README.md and
# main_pretrain.py. The rest is the shorter schedule's.
_base_ = './pretrain_adamw-coslr-100e.py'

optim_wrapper = dict(optimizer=dict(lr=2.4e-3), clip_grad=None)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=15, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=285, by_epoch=True, begin=15, end=300, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=300)
