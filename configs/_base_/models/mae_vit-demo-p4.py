# The demo's teacher: MAE with an encoder 96 wide, 6 blocks, 6 heads, for 32 px images in 4 px patches (64 tokens); a
# decoder 64 wide, 2 blocks. It predicts raw pixels: a patch of blank paper has no variance to normalise by.
# Shape: our choice, what two CPU cores train in minutes.
_base_ = './mae_vit-mini-p8.py'
model = dict(
    backbone=dict(
        arch=dict(embed_dims=96, num_layers=6, num_heads=6, feedforward_channels=384), img_size=32, patch_size=4),
    neck=dict(patch_size=4, embed_dim=96, decoder_embed_dim=64),
    head=dict(norm_pix=False, patch_size=4))
