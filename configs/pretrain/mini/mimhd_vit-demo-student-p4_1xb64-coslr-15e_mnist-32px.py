# The demo's student: MIM-HD on 4,000 digits of MNIST at 32 px. tools/quickstart.py trains the teacher and calls this.
# Command: python tools/train.py configs/pretrain/mini/mimhd_vit-demo-student-p4_1xb64-coslr-15e_mnist-32px.py
_base_ = [
    '../../_base_/models/mimhd_vit-demo-p4.py',
    '../../_base_/datasets/mnist_32px.py',
    '../../_base_/schedules/pretrain_mini.py',
    '../../_base_/mimhd_runtime.py',
]

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=14, by_epoch=True, begin=1, end=15, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=15)
