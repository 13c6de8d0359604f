# Table 3, MSE in place of KL between relations.
# Command: bash tools/dist_train.sh configs/pretrain/ablations/mimhd_vit-base-p16-mse_8xb128-amp-coslr-100e_tiny-imagenet.py 8
# Time: not run. Result: not run.
_base_ = '../mimhd-literal_vit-base-p16_8xb128-amp-coslr-100e_tiny-imagenet.py'
model = dict(head=dict(loss=dict(criterion='L2')))
