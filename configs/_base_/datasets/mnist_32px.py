# The demo's data: digits of MNIST as 32 px PNG files in class folders, written by tools/quickstart.py. Crops of 60 to
# 100 % of the area and no flips: a mirrored digit is not a digit. No label is read. Pixels are scaled to -1 ... 1.
dataset_type = 'CustomDataset'
data_root = 'quickstart_out/mnist'

data_preprocessor = dict(
    type='SelfSupDataPreprocessor', mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5], to_rgb=True)

train_pipeline = [
    dict(type='LoadAnyImage', max_bad=100),
    dict(type='RandomResizedCrop', scale=32, crop_ratio_range=(0.6, 1.0), backend='pillow', interpolation='bicubic'),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type=dataset_type, data_root=data_root, data_prefix='train', with_label=False, pipeline=train_pipeline))
