# Tiny ImageNet at its own 64 x 64 pixels for TinyMIM: with a colour jitter of the student's view alone.
_base_ = './tiny-imagenet_64px.py'

train_pipeline = [
    dict(type='LoadAnyImage', max_bad=100),
    dict(type='RandomResizedCrop', scale=64, crop_ratio_range=(0.2, 1.0), backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='StudentColorJitter', brightness=0.4, contrast=0.4, saturation=0.4),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
