# Figure 2 (b): as many teacher heads as the student has: the first ones, or the most important by
# tools/analysis_tools/rank_heads.py, which writes the list, with --cfg-options model.head.matcher.heads=heads.json
# Command: bash tools/dist_train.sh configs/pretrain/ablations/mimhd_vit-base-p16-select_8xb128-amp-coslr-100e_tiny-imagenet.py 8
# Time: not run. Result: not run.
_base_ = '../mimhd-literal_vit-base-p16_8xb128-amp-coslr-100e_tiny-imagenet.py'
model = dict(head=dict(matcher=dict(type='SelectHeadMatcher')))
