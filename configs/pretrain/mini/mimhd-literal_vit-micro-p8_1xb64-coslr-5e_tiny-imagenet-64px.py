# MIM-HD as printed (mimhd-literal) in miniature: the mini MAE teaches a student an eighth of its size, on Tiny ImageNet at 64 px.
# Command: python tools/train.py configs/pretrain/mini/mimhd-literal_vit-micro-p8_1xb64-coslr-5e_tiny-imagenet-64px.py
# Needs the teacher: configs/pretrain/mini/mae_vit-mini-p8_1xb64-coslr-20e_tiny-imagenet-64px.py first.
# Images elsewhere: --cfg-options train_dataloader.dataset.data_root=DIR default_hooks.knn_probe.train.data_root=DIR \
#     default_hooks.knn_probe.test.data_root=DIR
_base_ = [
    '../../_base_/models/mimhd-literal_vit-micro-p8.py',
    '../../_base_/datasets/tiny-imagenet_64px.py',
    '../../_base_/schedules/pretrain_mini-5e.py',
    '../../_base_/mimhd_runtime.py',
]

# k-NN on a part of the labelled images, which training does not look at; tools/knn.py scores all of them.
data_root = 'data/tiny-imagenet-200'
probe_pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
default_hooks = dict(
    checkpoint=dict(interval=1),
    knn_probe=dict(
        type='KNNProbeHook', interval=5, max_train=6000, max_test=1000,
        train=dict(type='TinyImageNet', data_root=data_root, split='train', pipeline=probe_pipeline),
        test=dict(type='TinyImageNet', data_root=data_root, split='val', pipeline=probe_pipeline)))
