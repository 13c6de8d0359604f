# Scenes of up to 8 digits, 96 x 64, in ADE20K's layout, which tools/quickstart.py composes of MNIST's: annotations hold
# 0 for the edges of strokes, which are not scored, 1 to 10 for the digits 0 to 9 and 11 for the ground. No flips: a
# mirrored digit is not a digit. Crop, the size that the student knows, and scales: our choice.
dataset_type = 'BaseSegDataset'
data_root = 'quickstart_out/digit_scenes'
crop_size = (32, 32)
metainfo = dict(
    classes=('0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'ground'),
    palette=[[230, 60, 60], [250, 150, 30], [240, 225, 50], [130, 210, 50], [20, 140, 70], [60, 220, 210],
             [40, 110, 240], [140, 80, 220], [240, 90, 200], [170, 110, 60], [60, 60, 60]])

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
# three sizes: tools/test.py --tta
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[
        [dict(type='Resize', scale=scale, keep_ratio=True) for scale in ((96, 64), (108, 72), (120, 80))],
        [dict(type='LoadAnnotations')],
        [dict(type='PackSegInputs')],
    ]),
]

train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type, data_root=data_root, metainfo=metainfo, img_suffix='.png', reduce_zero_label=True,
        pipeline=train_pipeline,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training')))
val_dataloader = dict(
    batch_size=20,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type, data_root=data_root, metainfo=metainfo, img_suffix='.png', reduce_zero_label=True,
        pipeline=test_pipeline,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation')))
test_dataloader = val_dataloader

val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
