# UperNet, ViT-B pre-trained by MAE for 1600 epochs (OpenMMLab's file), ADE20K at 512 px, 160,000 iterations; otherwise
# as for MIM-HD.
# Command: bash tools/dist_train.sh configs/segmentation/mae-vit-base_upernet_8xb2-amp-160k_ade20k-512x512.py 8
# Time: not run. Result: not run (mmsegmentation's model index: 48.13 mIoU with a relative position bias).
_base_ = './mimhd-vit-base_upernet_8xb2-amp-160k_ade20k-512x512.py'
model = dict(backbone=dict(init_cfg=dict(
    checkpoint='checkpoints/mae_vit-base-p16_8xb512-fp16-coslr-1600e_in1k_20220825-f7569ca2.pth')))
