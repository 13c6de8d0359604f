# UperNet on the demo's student (48 wide, 4 blocks, 4 heads, 4 px patches) for crops of 32 px: positions and pixels,
# scaled to -1 ... 1, are those that the student knows. Levels have the strides 2, 4, 8 and 16. Most pixels are ground,
# the last class: they count a tenth. Shapes and weights: our choice.
_base_ = './upernet_vit-micro-p8.py'
class_weight = [1.] * 10 + [0.1]
model = dict(
    data_preprocessor=dict(
        mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5], size=(32, 32), test_cfg=dict(size_divisor=4)),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=48, num_layers=4, num_heads=4, feedforward_channels=192), img_size=(32, 32),
        patch_size=4, out_indices=[0, 1, 2, 3], init_cfg=dict(checkpoint='quickstart_out/student/epoch_15.pth')),
    neck=dict(embed_dim=48),
    decode_head=dict(in_channels=[48, 48, 48, 48], channels=32, loss_decode=dict(class_weight=class_weight)),
    auxiliary_head=dict(in_channels=48, channels=16, loss_decode=dict(class_weight=class_weight)),
    test_cfg=dict(crop_size=(32, 32), stride=(16, 16)))
