# What the mini MIM-HD and TinyMIM share: a student 96 wide with 8 blocks and 6 heads, taught by the 9th of 12 blocks
# (3/4, as 18 of 24) of the mini MAE (8 heads). 64 px images, 8 px patches. Shapes: our choice.
model = dict(
    backbone=dict(
        type='RelationViT', img_size=64, patch_size=8,
        arch=dict(embed_dims=96, num_layers=8, num_heads=6, feedforward_channels=384)),
    target_generator=dict(
        type='MAETeacher', img_size=64, patch_size=8, block=9,
        arch=dict(embed_dims=192, num_layers=12, num_heads=8, feedforward_channels=768),
        checkpoint='work_dirs/mae_vit-mini-p8_1xb64-coslr-20e_tiny-imagenet-64px/epoch_20.pth'),
    head=dict(
        type='RelationDistillHead', pairs=('qk', 'vv'),
        loss=dict(type='RelationDistillLoss', criterion='KL')))
