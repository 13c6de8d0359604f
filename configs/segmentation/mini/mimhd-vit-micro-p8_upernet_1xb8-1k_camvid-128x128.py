# UperNet on the mini MIM-HD student, CamVid: the small real benchmark.
# Command: python tools/train.py configs/segmentation/mini/mimhd-vit-micro-p8_upernet_1xb8-1k_camvid-128x128.py
# Needs the student: configs/pretrain/mini/mimhd_vit-micro-p8_1xb64-coslr-5e_tiny-imagenet-64px.py first. An untrained
# one for comparison: --cfg-options model.backbone.init_cfg=None
# Time: not run. Result: not run.
_base_ = [
    '../../_base_/models/upernet_vit-micro-p8.py',
    '../../_base_/datasets/camvid.py',
    '../../_base_/schedules/schedule_seg-mini.py',
    '../../_base_/mmseg_runtime.py',
]
default_hooks = dict(checkpoint=dict(interval=500))
