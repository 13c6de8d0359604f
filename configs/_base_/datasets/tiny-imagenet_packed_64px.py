# Tiny ImageNet at its own 64 x 64 pixels for self-supervised training, decoded once. What differs from
# tiny-imagenet_64px.py: images come from one file, crops (20 to 100 % of the area) and flips are drawn and computed on
# the device, copies do not block, four batches a worker are prepared. Write the file with
#     python tools/dataset_converters/pack_images.py data/tiny-imagenet-200/train \
#         data/tiny-imagenet-200/train.safetensors
# With num_workers=0, set prefetch_factor=None.
_base_ = './tiny-imagenet_64px.py'

data_preprocessor = dict(
    type='DeviceAugmentation', crop=dict(scale=64, crop_ratio_range=(0.2, 1.0)), flip_prob=0.5, non_blocking=True)

train_pipeline = [dict(type='PackInputs')]
train_dataloader = dict(
    persistent_workers=True,
    prefetch_factor=4,
    dataset=dict(
        _delete_=True, type='PackedImages', file='data/tiny-imagenet-200/train.safetensors', with_label=False,
        pipeline=train_pipeline))
