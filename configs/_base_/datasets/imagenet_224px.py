# ImageNet-1K at 224 px for self-supervised training, in data/imagenet as mmpretrain wants it; crops of 20 to 100 % of
# the area and flips, as MAE's PRETRAIN.md. (mmpretrain's own file cannot be inherited through `mmpretrain::`: its
# collate_fn is then marked with a scope, which mmengine hands on to the function as an argument.) Images that cannot be
# decoded are replaced by others, up to 100 files a loader process (our choice).
data_preprocessor = dict(
    type='SelfSupDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)

train_pipeline = [
    dict(type='LoadAnyImage', max_bad=100),
    dict(type='RandomResizedCrop', scale=224, crop_ratio_range=(0.2, 1.0), backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=512,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='ImageNet', data_root='data/imagenet', split='train', pipeline=train_pipeline))
