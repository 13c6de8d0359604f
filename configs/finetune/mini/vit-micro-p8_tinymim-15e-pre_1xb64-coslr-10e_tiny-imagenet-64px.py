# The mini student that TinyMIM has distilled for 15 epochs, fine-tuned; its last block has 8 heads.
# Command: python tools/train.py configs/finetune/mini/vit-micro-p8_tinymim-15e-pre_1xb64-coslr-10e_tiny-imagenet-64px.py
# Needs the student: configs/pretrain/mini/tinymim_vit-micro-p8_1xb64-coslr-15e_tiny-imagenet-64px.py first.
# Time: not run. Result: not run.
_base_ = './vit-micro-p8_mimhd-5e-pre_1xb64-coslr-10e_tiny-imagenet-64px.py'
model = dict(
    backbone=dict(
        layer_cfgs=[dict()] * 7 + [dict(num_heads=8)],
        init_cfg=dict(checkpoint='work_dirs/tinymim_vit-micro-p8_1xb64-coslr-15e_tiny-imagenet-64px/epoch_15.pth')))
