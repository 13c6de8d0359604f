# The mini family's five epochs, the first of them warm-up.
_base_ = './pretrain_mini.py'

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=4, by_epoch=True, begin=1, end=5, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=5)
