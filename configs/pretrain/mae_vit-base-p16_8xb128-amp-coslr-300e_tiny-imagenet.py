# MAE, ViT-B, pre-trained on Tiny ImageNet at 224 px without a teacher, for as long as TinyMIM. Not in the paper: our
# choice.
# Command: bash tools/dist_train.sh configs/pretrain/mae_vit-base-p16_8xb128-amp-coslr-300e_tiny-imagenet.py 8
# Time: not run. Result: not run.
_base_ = [
    '../_base_/models/mae_vit-base-p16.py',
    '../_base_/datasets/tiny-imagenet_224px.py',
    '../_base_/schedules/tinymim_adamw-coslr-300e.py',
    '../_base_/default_runtime.py',
]
optim_wrapper = dict(optimizer=dict(lr=6e-4))
auto_scale_lr = dict(base_batch_size=1024)
