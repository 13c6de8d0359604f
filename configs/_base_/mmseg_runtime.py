# What every segmentation run shares: the values of mmsegmentation's default_runtime.py, our classes, a visualiser that
# puts image, truth and prediction side by side (tools/test.py --show-dir), and what a run needs that may be killed at
# any moment (see default_runtime.py).
custom_imports = dict(imports=['mimhd_mm', 'mimhd_mm.visualization.seg_panel_visualizer'])
default_scope = 'mmseg'
runner_type = 'mimhd_mm.ResumableRunner'
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='mimhd_mm.SafeCheckpointHook', by_epoch=False, interval=16000, max_keep_ckpts=3),
    exact_resume=dict(type='mimhd_mm.ExactResumeHook'),
    interrupt=dict(type='mimhd_mm.InterruptHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'))
visualizer = dict(type='SegPanelVisualizer', vis_backends=[dict(type='LocalVisBackend')])
log_processor = dict(by_epoch=False)
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0, diff_rank_seed=True)

# tools/test.py --tta: averages the softmax over the dataset's `tta_pipeline`
tta_model = dict(type='SegTTAModel')
