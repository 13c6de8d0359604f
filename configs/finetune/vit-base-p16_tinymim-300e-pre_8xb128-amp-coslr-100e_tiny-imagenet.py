# ViT-B distilled by TinyMIM on Tiny ImageNet at 224 px and fine-tuned there; its last block has 16 heads. Drop path is MIM-HD's.
# Command: bash tools/dist_train.sh configs/finetune/vit-base-p16_tinymim-300e-pre_8xb128-amp-coslr-100e_tiny-imagenet.py 8
# Time: not run. Result: not run (paper: 79.2 top-1).
_base_ = './vit-base-p16_mimhd-100e-pre_8xb128-amp-coslr-100e_tiny-imagenet.py'
model = dict(
    backbone=dict(
        layer_cfgs=[dict()] * 11 + [dict(num_heads=16)],
        init_cfg=dict(checkpoint='work_dirs/tinymim_vit-base-p16_8xb128-amp-coslr-300e_tiny-imagenet/epoch_300.pth')))
