# MIM-HD as its paper prints it: the student sees the whole image, every image is
# reconstructed, and each student head weighs the teacher's heads by eqs. 4-6 to the letter.
# Eq. 4 then describes every head by the same constant, so that the weights stay uniform for ever.
_base_ = './mimhd_vit-base-p16.py'
model = dict(
    token_fraction=1.0,
    rec_weight=0.1,  # alpha of eq. 11, not given in the paper: our choice, better than 1 in miniature (docs/evidence.md)
    rec_fraction=1.0,
    head=dict(matcher=dict(type='LiteralHeadMatcher')))
