# ViT-B from scratch with the settings of the distilled one, layer-wise decay included: what pre-training is worth. A
# recipe for training from scratch would be longer and have another rate.
# Command: bash tools/dist_train.sh configs/finetune/vit-base-p16_8xb128-amp-coslr-100e_in1k.py 8
# Time: not run. Result: not run.
_base_ = './vit-base-p16_mimhd-100e-pre_8xb128-amp-coslr-100e_in1k.py'
model = dict(backbone=dict(init_cfg=None))
