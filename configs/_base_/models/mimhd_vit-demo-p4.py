# The demo's MIM-HD: a student 48 wide with 4 blocks and 4 heads, taught by the 5th of 6 blocks of the demo's MAE
# (6 heads). 32 px images, 4 px patches, raw pixels as the teacher's decoder predicts them. Shapes: our choice.
_base_ = './mimhd_vit-micro-p8.py'
model = dict(
    backbone=dict(
        img_size=32, patch_size=4,
        arch=dict(embed_dims=48, num_layers=4, num_heads=4, feedforward_channels=192)),
    target_generator=dict(
        img_size=32, patch_size=4, block=5,
        arch=dict(embed_dims=96, num_layers=6, num_heads=6, feedforward_channels=384),
        checkpoint='quickstart_out/teacher/epoch_30.pth'),
    neck=dict(decoder_embed_dim=64),
    rec_head=dict(norm_pix=False),
    rec_weight=1.0)  # our choice, so that minutes of training make a picture
