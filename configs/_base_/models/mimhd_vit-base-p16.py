# MIM-HD with a ViT-B student and MAE ViT-L's 18th block as the teacher (paper, Table 4). Sizes that follow from
# others (head counts, widths, patches) are filled in by the algorithm. Children change `backbone.arch` alone.
#
# The teacher's file must hold the decoder, and `norm_pix` must say what it predicts: True for OpenMMLab's files and
# the official mae_pretrain_vit_large_full.pth, False for mae_visualize_vit_large.pth. Check a file with
#     python tools/analysis_tools/check_teacher.py FILE
model = dict(
    type='MIMHD',
    backbone=dict(type='RelationViT', arch='base', img_size=224, patch_size=16, drop_path_rate=0.),  # our choice: 0
    target_generator=dict(
        type='MAETeacher', arch='large', img_size=224, patch_size=16, block=18,
        checkpoint='checkpoints/mae_vit-large-p16_8xb512-fp16-coslr-1600e_in1k_20220825-cc7e98c9.pth'),
    head=dict(
        type='RelationDistillHead', pairs=('qk', 'vv'),
        matcher=dict(type='AttentionHeadMatcher'),
        loss=dict(type='RelationDistillLoss', criterion='KL')),
    neck=dict(
        type='DualViewMAEDecoder', num_views=2, mask_ratio=0.5, frozen=True,
        decoder_embed_dim=512, decoder_depth=8, decoder_num_heads=16),
    rec_head=dict(
        type='MAEPixelHead', norm_pix=True,
        loss=dict(type='PixelReconstructionLoss', criterion='L2')),
    rec_weight=1.0)  # alpha of eq. 11, not given in the paper: our choice
