# UperNet, ViT-B pre-trained by DMAE, ADE20K at 512 px, 160,000 iterations; otherwise as for MIM-HD.
# Command: bash tools/dist_train.sh configs/segmentation/dmae-vit-base_upernet_8xb2-amp-160k_ade20k-512x512.py 8
# Time: not run. Result: not run.
_base_ = './mimhd-vit-base_upernet_8xb2-amp-160k_ade20k-512x512.py'
model = dict(backbone=dict(init_cfg=dict(
    checkpoint='work_dirs/dmae_vit-base-p16_8xb512-amp-coslr-100e_in1k/epoch_100.pth')))
