# UperNet, ViT-B pre-trained by MIM-HD, with a relative position bias that starts at zero, as the published numbers of
# MAE and TinyMIM have it; otherwise as without. ViT-S and ViT-Ti: the same line, or
# --cfg-options model.backbone.type=mimhd_mm.RelPosViT
# Command: bash tools/dist_train.sh configs/segmentation/mimhd-vit-base-relpos_upernet_8xb2-amp-160k_ade20k-512x512.py 8
# Time: not run. Result: not run (paper: 50.7 mIoU, backbone not described).
_base_ = './mimhd-vit-base_upernet_8xb2-amp-160k_ade20k-512x512.py'
model = dict(backbone=dict(type='mimhd_mm.RelPosViT'))
