# ViT-B distilled by TinyMIM for 300 epochs, fine-tuned on ImageNet-1K: Table 1. Its last block keeps the 16 heads it
# was distilled with. Drop path 0.2 is TinyMIM's (README.md);
# lab/tables/run_table.py fine-tunes every method with MIM-HD's 0.1.
# Command: bash tools/dist_train.sh configs/finetune/vit-base-p16_tinymim-300e-pre_8xb128-amp-coslr-100e_in1k.py 8
# Time: not run. Result: not run (MIM-HD's paper: 84.5 top-1).
_base_ = './vit-base-p16_mimhd-100e-pre_8xb128-amp-coslr-100e_in1k.py'
model = dict(
    backbone=dict(
        drop_path_rate=0.2,
        layer_cfgs=[dict()] * 11 + [dict(num_heads=16)],
        init_cfg=dict(checkpoint='work_dirs/tinymim_vit-base-p16_8xb512-amp-coslr-300e_in1k/epoch_300.pth')))
