# The demo's teacher: MAE with an encoder 96 wide, 6 blocks, 6 heads, for 32 px images in 4 px patches (64 tokens); a
# decoder 64 wide, 2 blocks. It predicts raw pixels: a patch of blank paper has no variance to normalise by.
# Shape: our choice, what two CPU cores train in minutes.
model = dict(
    type='MAE',
    backbone=dict(
        type='MAEViT',
        arch=dict(embed_dims=96, num_layers=6, num_heads=6, feedforward_channels=384),
        img_size=32, patch_size=4, mask_ratio=0.75),
    neck=dict(
        type='MAEPretrainDecoder', num_patches=64, patch_size=4, embed_dim=96,
        decoder_embed_dim=64, decoder_depth=2, decoder_num_heads=4, mlp_ratio=4.),
    head=dict(
        type='MAEPretrainHead', norm_pix=False, patch_size=4,
        loss=dict(type='PixelReconstructionLoss', criterion='L2')),
    init_cfg=[
        dict(type='Xavier', layer='Linear', distribution='uniform'),
        dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0),
    ])
