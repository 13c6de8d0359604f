# DMAE in miniature: a student 96 wide with 8 blocks and 6 heads, whose 6th block follows the 9th of 12 blocks of the
# mini MAE. 64 px images, 8 px patches. Shapes: our choice, those of the micro MIM-HD and the mini MAE's decoder.
_base_ = './dmae_vit-base-p16.py'
model = dict(
    backbone=dict(
        img_size=64, patch_size=8,
        arch=dict(_delete_=True, embed_dims=96, num_layers=8, num_heads=6, feedforward_channels=384)),
    target_generator=dict(
        img_size=64, patch_size=8, block=9,
        arch=dict(_delete_=True, embed_dims=192, num_layers=12, num_heads=8, feedforward_channels=768),
        checkpoint='work_dirs/mae_vit-mini-p8_1xb64-coslr-20e_tiny-imagenet-64px/epoch_20.pth'),
    neck=dict(decoder_embed_dim=128, decoder_depth=2, decoder_num_heads=4))
