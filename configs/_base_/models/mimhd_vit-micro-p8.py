# MIM-HD in miniature, with the mini MAE's decoder.
_base_ = './relations_vit-micro-p8.py'
model = dict(
    type='MIMHD',
    token_fraction=0.25,
    head=dict(matcher=dict(type='OneToOneHeadMatcher')),
    neck=dict(
        type='DualViewMAEDecoder', num_views=2, mask_ratio=0.5, frozen=True,
        decoder_embed_dim=128, decoder_depth=2, decoder_num_heads=4),
    rec_head=dict(
        type='MAEPixelHead', norm_pix=True,
        loss=dict(type='PixelReconstructionLoss', criterion='L2')),
    rec_weight=0,  # no L_REC, for its cost and no gain seen (docs/evidence.md); 0.1 turns it on
    rec_fraction=0.25)  # then of a quarter of the images: the decoder costs more than a student of a quarter of the patches
