# What every run of mmpretrain's kind shares. mmpretrain's defaults (timer, logger every 100 iterations, checkpoints,
# local visualiser) with our classes registered, and what a run needs that may be killed at any moment: whole
# checkpoints with hashes, an exact resume from any of them, and one on SIGTERM.
_base_ = 'mmpretrain::_base_/default_runtime.py'

custom_imports = dict(imports=['mimhd_mm'])
runner_type = 'mimhd_mm.ResumableRunner'
default_hooks = dict(
    checkpoint=dict(type='mimhd_mm.SafeCheckpointHook', interval=10, max_keep_ckpts=3),
    exact_resume=dict(type='mimhd_mm.ExactResumeHook'),
    interrupt=dict(type='mimhd_mm.InterruptHook'),
    non_finite=dict(type='mimhd_mm.NonFiniteHook'))
randomness = dict(seed=0, diff_rank_seed=True)
