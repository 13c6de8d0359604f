# ViT-B distilled by DMAE for 100 epochs, fine-tuned with the settings of MIM-HD's student; DMAE's own are a layer decay
# of 0.75, drop path 0.15 and 20 epochs of warm-up.
# Command: bash tools/dist_train.sh configs/finetune/vit-base-p16_dmae-100e-pre_8xb128-amp-coslr-100e_in1k.py 8
# Time: not run. Result: not run (DMAE's authors, with their settings: 84.0 top-1).
_base_ = './vit-base-p16_mimhd-100e-pre_8xb128-amp-coslr-100e_in1k.py'
model = dict(backbone=dict(init_cfg=dict(
    checkpoint='work_dirs/dmae_vit-base-p16_8xb512-amp-coslr-100e_in1k/epoch_100.pth')))
