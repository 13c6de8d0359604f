# The demo's MIM-HD: a student 48 wide with 4 blocks and 4 heads, taught by the 5th of 6 blocks of the demo's MAE
# (6 heads). 32 px images, 4 px patches, raw pixels as the teacher's decoder predicts them. Shapes: our choice.
model = dict(
    type='MIMHD',
    backbone=dict(
        type='RelationViT', img_size=32, patch_size=4,
        arch=dict(embed_dims=48, num_layers=4, num_heads=4, feedforward_channels=192)),
    target_generator=dict(
        type='MAETeacher', img_size=32, patch_size=4, block=5,
        arch=dict(embed_dims=96, num_layers=6, num_heads=6, feedforward_channels=384),
        checkpoint='quickstart_out/teacher/epoch_30.pth'),
    head=dict(
        type='RelationDistillHead', pairs=('qk', 'vv'),
        matcher=dict(type='AttentionHeadMatcher'),
        loss=dict(type='RelationDistillLoss', criterion='KL')),
    neck=dict(
        type='DualViewMAEDecoder', num_views=2, mask_ratio=0.5, frozen=True,
        decoder_embed_dim=64, decoder_depth=2, decoder_num_heads=4),
    rec_head=dict(
        type='MAEPretrainHead', norm_pix=False,
        loss=dict(type='PixelReconstructionLoss', criterion='L2')),
    rec_weight=1.0)
