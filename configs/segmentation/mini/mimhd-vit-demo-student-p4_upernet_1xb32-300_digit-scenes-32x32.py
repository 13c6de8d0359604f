# UperNet on the demo's student: scenes of digits. tools/quickstart.py makes scenes and student and calls this.
# Command: python tools/train.py configs/segmentation/mini/mimhd-vit-demo-student-p4_upernet_1xb32-300_digit-scenes-32x32.py
# An untrained student for comparison: --cfg-options model.backbone.init_cfg=None
# Time: not measured alone. Result: 27.1 mIoU from the demo's 15 epochs' student, 37.1 untrained (bash tools/quickstart.sh,
# commit bae2b5d, two cores of an AMD EPYC, torch 2.12.1, seed 0, one run).
_base_ = [
    '../../_base_/models/upernet_vit-demo-p4.py',
    '../../_base_/datasets/digit-scenes_32px.py',
    '../../_base_/schedules/schedule_seg-mini.py',
    '../../_base_/mmseg_runtime.py',
]
optim_wrapper = dict(optimizer=dict(lr=6e-3), paramwise_cfg=dict(layer_decay_rate=1.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=15),
    dict(type='PolyLR', eta_min=0., power=1., by_epoch=False, begin=15, end=300),
]
train_cfg = dict(max_iters=300, val_interval=100)
auto_scale_lr = dict(base_batch_size=32)
default_hooks = dict(checkpoint=dict(interval=100))
