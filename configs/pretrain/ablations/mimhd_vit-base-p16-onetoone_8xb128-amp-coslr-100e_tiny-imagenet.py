# Figure 2 (c): the student's last block rebuilt with the teacher's 16 heads, head to head.
# Command: bash tools/dist_train.sh configs/pretrain/ablations/mimhd_vit-base-p16-onetoone_8xb128-amp-coslr-100e_tiny-imagenet.py 8
# Time: not run. Result: not run.
_base_ = '../mimhd-literal_vit-base-p16_8xb128-amp-coslr-100e_tiny-imagenet.py'
model = dict(
    backbone=dict(relation_heads=16),
    head=dict(matcher=dict(type='OneToOneHeadMatcher')))
