# MAE, ViT-B, ImageNet-1K, 1600 epochs without a teacher: a peer in Table 1, whose weights OpenMMLab publishes (the
# vit-base-p16_mae-1600e-pre_... fine-tuning config starts from them). lr, betas, weight decay and warm-up: PRETRAIN.md.
# Command: bash tools/dist_train.sh configs/pretrain/mae_vit-base-p16_8xb512-amp-coslr-1600e_in1k.py 8
# Time: not run. Result: not run (mmpretrain's model index: 83.5 top-1 after fine-tuning).
_base_ = [
    '../_base_/models/mae_vit-base-p16.py',
    '../_base_/datasets/imagenet_224px.py',
    '../_base_/schedules/pretrain_adamw-coslr-100e.py',
    '../_base_/default_runtime.py',
]

optim_wrapper = dict(optimizer=dict(lr=2.4e-3), clip_grad=None)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=40, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=1560, by_epoch=True, begin=40, end=1600, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=1600)
