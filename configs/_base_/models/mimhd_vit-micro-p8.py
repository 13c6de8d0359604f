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
    rec_weight=0.1,  # our choice: better k-NN than with 1 (docs/evidence.md)
    rec_fraction=0.25)  # our choice: the decoder costs more than the student does on a quarter of the patches
