# ImageNet-1K at 224 px for self-supervised training, with less work for loader processes. What differs from
# imagenet_224px.py: large JPEGs are decoded at reduced resolution (LoadAndCrop: the same boxes; the same pixels where
# the short edge is below 448 px, near ones above); flips are drawn on the device; copies do not block; four batches a
# worker are prepared. For TinyMIM, whose jitter imagenet_tinymim_224px.py does on the CPU:
#     data_preprocessor = dict(student_jitter=dict(brightness=0.4, contrast=0.4, saturation=0.4))
# With num_workers=0, set prefetch_factor=None.
_base_ = './imagenet_224px.py'

data_preprocessor = dict(type='DeviceAugmentation', flip_prob=0.5, non_blocking=True)

train_pipeline = [
    dict(type='LoadAndCrop', scale=224, crop_ratio_range=(0.2, 1.0), max_bad=100),
    dict(type='PackInputs'),
]
train_dataloader = dict(persistent_workers=True, prefetch_factor=4, dataset=dict(pipeline=train_pipeline))
