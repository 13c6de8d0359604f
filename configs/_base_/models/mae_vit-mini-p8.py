# The mini teacher: MAE with an encoder 192 wide, 12 blocks, 8 heads, for 64 px images in 8 px patches (64 tokens);
# a decoder 128 wide, 2 blocks. Shape: our choice, ViT-L's proportions (24 blocks, 16 heads) on two CPU cores.
model = dict(
    type='MAE',
    backbone=dict(
        type='MAEViT',
        arch=dict(embed_dims=192, num_layers=12, num_heads=8, feedforward_channels=768),
        img_size=64, patch_size=8, mask_ratio=0.75),
    neck=dict(
        type='MAEPretrainDecoder', num_patches=64, patch_size=8, embed_dim=192,
        decoder_embed_dim=128, decoder_depth=2, decoder_num_heads=4, mlp_ratio=4.),
    head=dict(
        type='MAEPretrainHead', norm_pix=True, patch_size=8,
        loss=dict(type='PixelReconstructionLoss', criterion='L2')),
    init_cfg=[
        dict(type='Xavier', layer='Linear', distribution='uniform'),
        dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0),
    ])
