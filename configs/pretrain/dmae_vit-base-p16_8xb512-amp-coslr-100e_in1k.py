# DMAE, ViT-B student, MAE ViT-L teacher, ImageNet-1K, 100 epochs: a peer in Table 1.
# Command: bash tools/dist_train.sh configs/pretrain/dmae_vit-base-p16_8xb512-amp-coslr-100e_in1k.py 8
# Time: not run. Result: not run (DMAE's authors: 84.0 top-1 after fine-tuning).
# Recipe of the public code (UCSC-VLAA/DMAE, pretrain.sh and main_distill.py): batch 4096 (there 8 x 128, accumulated
# 4 times), lr 1.5e-4 * 4096 / 256, betas 0.9 and 0.95, weight decay 0.05, 20 warm-up epochs, cosine to 0, no clipping,
# no drop path, crops of 20 to 100 % of the area and flips. Ours: bf16 for its fp16, and no weight decay on the tokens.
_base_ = [
    '../_base_/models/dmae_vit-base-p16.py',
    '../_base_/datasets/imagenet_224px.py',
    '../_base_/schedules/pretrain_adamw-coslr-100e.py',
    '../_base_/default_runtime.py',
]

optim_wrapper = dict(optimizer=dict(lr=2.4e-3), clip_grad=None)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=20, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=80, by_epoch=True, begin=20, end=100, convert_to_iter_based=True),
]
default_hooks = dict(teacher_file=dict(type='TeacherFileHook'))
