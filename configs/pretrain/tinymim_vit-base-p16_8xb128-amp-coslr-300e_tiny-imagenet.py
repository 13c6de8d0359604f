# TinyMIM, ViT-B student, MAE ViT-L teacher, pre-trained on Tiny ImageNet at 224 px: the baseline of the paper's
# small-data setting and of Table 3. Batch and epochs: our choice; lr is TinyMIM's 1.5e-4 * batch / 256.
# Command: bash tools/dist_train.sh configs/pretrain/tinymim_vit-base-p16_8xb128-amp-coslr-300e_tiny-imagenet.py 8
# Time: not run. Result: not run (paper: 79.2 top-1 after fine-tuning, 39.6 mIoU on ADE20K).
_base_ = [
    '../_base_/models/tinymim_vit-base-p16.py',
    '../_base_/datasets/tiny-imagenet_tinymim_224px.py',
    '../_base_/schedules/tinymim_adamw-coslr-300e.py',
    '../_base_/mimhd_runtime.py',
]
optim_wrapper = dict(optimizer=dict(lr=6e-4))
auto_scale_lr = dict(base_batch_size=1024)
