# What every MIM-HD run adds to the defaults: weights of the heads in the log, pictures of what is learned, and a check on
# `--resume` that the teacher's file is the one the run began with. Intervals: iterations of the first two, epochs of the
# next two.
_base_ = './default_runtime.py'
default_hooks = dict(
    head_weight=dict(type='HeadWeightHook', interval=100),
    head_routing=dict(type='HeadRoutingHook', interval=500),
    reconstruction=dict(type='ReconstructionHook', interval=10, num=4),
    attention=dict(type='AttentionHook', interval=10, num=4),
    teacher_file=dict(type='TeacherFileHook'))
