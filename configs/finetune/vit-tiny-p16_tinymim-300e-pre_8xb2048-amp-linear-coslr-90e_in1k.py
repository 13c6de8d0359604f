# A linear layer on a frozen ViT-Ti that TinyMIM has distilled for 300 epochs; its last block has 16 heads.
# Command: bash tools/dist_train.sh configs/finetune/vit-tiny-p16_tinymim-300e-pre_8xb2048-amp-linear-coslr-90e_in1k.py 8
# Time: not run. Result: not run (not in the paper).
_base_ = './vit-tiny-p16_mimhd-100e-pre_8xb2048-amp-linear-coslr-90e_in1k.py'
model = dict(
    backbone=dict(
        layer_cfgs=[dict()] * 11 + [dict(num_heads=16)],
        init_cfg=dict(checkpoint='work_dirs/tinymim_vit-tiny-p16_8xb512-amp-coslr-300e_in1k/epoch_300.pth')))
