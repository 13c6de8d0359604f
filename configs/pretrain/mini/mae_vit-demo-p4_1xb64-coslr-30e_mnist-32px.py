# The demo's teacher: MAE on 4,000 digits of MNIST at 32 px. tools/quickstart.py writes the images and calls this.
# Command: python tools/train.py configs/pretrain/mini/mae_vit-demo-p4_1xb64-coslr-30e_mnist-32px.py
_base_ = [
    '../../_base_/models/mae_vit-demo-p4.py',
    '../../_base_/datasets/mnist_32px.py',
    '../../_base_/schedules/pretrain_mini.py',
    '../../_base_/default_runtime.py',
]

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=28, by_epoch=True, begin=2, end=30, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=30)
