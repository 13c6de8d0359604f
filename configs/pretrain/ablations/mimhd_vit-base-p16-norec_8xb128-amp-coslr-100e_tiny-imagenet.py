# Table 3, "+ head-level Q-K and V-V": head-level distillation without L_REC.
# Command: bash tools/dist_train.sh configs/pretrain/ablations/mimhd_vit-base-p16-norec_8xb128-amp-coslr-100e_tiny-imagenet.py 8
# Time: not run. Result: not run (paper: 40.8 mIoU on ADE20K).
_base_ = '../mimhd-literal_vit-base-p16_8xb128-amp-coslr-100e_tiny-imagenet.py'
model = dict(rec_weight=0)
