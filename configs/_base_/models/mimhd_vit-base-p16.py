# MIM-HD with a ViT-B student: relations head by head, and the teacher's decoder on two views. Sizes that follow from
# others (head counts, widths, patches) are filled in by the algorithm. No drop path: our choice.
#
# Two choices are ours, by measurement (docs/evidence.md): student and teacher see the same quarter of the patches, drawn
# anew for each image, and the channels of the student are cut into as many heads as the teacher has, which are taught one
# to one. The paper shows the whole image and weighs the teacher's heads: mimhd-literal_vit-base-p16.py.
#
# The teacher's file must hold the decoder, and `norm_pix` must say what it predicts: True for OpenMMLab's files and
# the official mae_pretrain_vit_large_full.pth, False for mae_visualize_vit_large.pth. Check a file with
#     python tools/analysis_tools/check_teacher.py FILE
_base_ = './relations_vit-base-p16.py'
model = dict(
    type='MIMHD',
    token_fraction=0.25,
    head=dict(matcher=dict(type='OneToOneHeadMatcher')),
    neck=dict(
        type='DualViewMAEDecoder', num_views=2, mask_ratio=0.5, frozen=True,
        decoder_embed_dim=512, decoder_depth=8, decoder_num_heads=16),
    rec_head=dict(
        type='MAEPixelHead', norm_pix=True,
        loss=dict(type='PixelReconstructionLoss', criterion='L2')),
    rec_weight=0.1,  # alpha of eq. 11, not given in the paper: our choice, better than 1 in miniature (docs/evidence.md)
    rec_fraction=0.25)  # our choice: the decoder costs more than the student does on a quarter of the patches
