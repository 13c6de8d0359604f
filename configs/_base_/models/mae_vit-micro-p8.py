# MAE from scratch with the mini student's encoder: what the student learns without a teacher.
_base_ = './mae_vit-mini-p8.py'
model = dict(
    backbone=dict(arch=dict(embed_dims=96, num_layers=8, num_heads=6, feedforward_channels=384)),
    neck=dict(embed_dim=96))
