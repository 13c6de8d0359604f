# Tiny ImageNet at its own 64 x 64 pixels for self-supervised training: crops of 20 to 100 % of the area and flips,
# as MAE's PRETRAIN.md; no label is read. Put the data set (official archive or class folders) at `data_root`. Images
# that cannot be decoded are replaced by others, up to 100 files a loader process (our choice).
dataset_type = 'TinyImageNet'
data_root = 'data/tiny-imagenet-200'

data_preprocessor = dict(
    type='SelfSupDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)

train_pipeline = [
    dict(type='LoadAnyImage', max_bad=100),
    dict(type='RandomResizedCrop', scale=64, crop_ratio_range=(0.2, 1.0), backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=64,
    num_workers=2,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type=dataset_type, data_root=data_root, split='train', with_label=False, pipeline=train_pipeline))
