# What every run of mmpretrain's kind shares. mmpretrain's defaults (timer, logger every 100 iterations, checkpoints,
# local visualiser) with our classes registered.
_base_ = 'mmpretrain::_base_/default_runtime.py'

custom_imports = dict(imports=['mimhd_mm'])
default_hooks = dict(checkpoint=dict(interval=10, max_keep_ckpts=3))
randomness = dict(seed=0, diff_rank_seed=True)
