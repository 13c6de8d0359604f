# ImageNet-1K at 224 px for a linear probe, with MAE's augmentation (FINETUNE.md): crops of 8 to 100 % and flips alone.
_base_ = './imagenet_finetune_224px.py'

train_pipeline = [
    dict(type='LoadAnyImage', max_bad=100),
    dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=2048, dataset=dict(pipeline=train_pipeline))
