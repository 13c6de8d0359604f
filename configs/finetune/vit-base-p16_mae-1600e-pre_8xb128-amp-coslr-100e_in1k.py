# ViT-B pre-trained by MAE for 1600 epochs (OpenMMLab's file), fine-tuned with the settings of the distilled one.
# Command: bash tools/dist_train.sh configs/finetune/vit-base-p16_mae-1600e-pre_8xb128-amp-coslr-100e_in1k.py 8
# Time: not run. Result: not run (mmpretrain's model index: 83.5 top-1 with these settings).
_base_ = './vit-base-p16_mimhd-100e-pre_8xb128-amp-coslr-100e_in1k.py'
model = dict(backbone=dict(init_cfg=dict(
    checkpoint='checkpoints/mae_vit-base-p16_8xb512-fp16-coslr-1600e_in1k_20220825-f7569ca2.pth')))
