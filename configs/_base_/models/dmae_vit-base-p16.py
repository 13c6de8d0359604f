# DMAE with a ViT-B student and MAE ViT-L as the teacher: features of the student's 9th of 12 blocks follow those of the
# teacher's 18th of 24. From the public code (UCSC-VLAA/DMAE: pretrain.sh, main_distill.py, models_mae_distill.py): 75 %
# of the patches masked, the same for both; a decoder of 8 blocks, 512 wide; one linear layer from the student's width
# to the teacher's; both sides L2-normalised, [class] among the tokens, mean absolute difference, weight 1; raw pixels
# as the target. Any MAE file can teach: its decoder is not used. Sizes that follow from others are filled in by the
# algorithm. Initial values: MAE's.
model = dict(
    type='DMAE',
    backbone=dict(type='TappedMAEViT', arch='base', img_size=224, patch_size=16, mask_ratio=0.75),
    target_generator=dict(
        type='MaskedMAETeacher', arch='large', img_size=224, patch_size=16, block=18, dtype='bfloat16',
        checkpoint='checkpoints/mae_vit-large-p16_8xb512-fp16-coslr-1600e_in1k_20220825-cc7e98c9.pth'),
    neck=dict(
        type='MAEPretrainDecoder', decoder_embed_dim=512, decoder_depth=8, decoder_num_heads=16, mlp_ratio=4.),
    head=dict(
        type='MAEPretrainHead', norm_pix=False,
        loss=dict(type='PixelReconstructionLoss', criterion='L2')),
    init_cfg=[
        dict(type='Xavier', layer='Linear', distribution='uniform'),
        dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0),
    ])
