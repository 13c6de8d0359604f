# Tiny ImageNet enlarged to 224 px for fine-tuning, with ImageNet's augmentation. Images are tested whole: they are
# square and smaller than the crop (our choice). For a data set of another class count:
#     --cfg-options model.head.num_classes=100 data_preprocessor.num_classes=100
_base_ = './imagenet_finetune_224px.py'

data_preprocessor = dict(num_classes=200)
test_pipeline = [
    dict(type='LoadAnyImage'),
    dict(type='Resize', scale=(224, 224), backend='pillow', interpolation='bicubic'),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(type='TinyImageNet', data_root='data/tiny-imagenet-200'))
val_dataloader = dict(dataset=dict(type='TinyImageNet', data_root='data/tiny-imagenet-200', pipeline=test_pipeline))
test_dataloader = val_dataloader
