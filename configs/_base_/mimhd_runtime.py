# What every MIM-HD run adds to the defaults: weights of the heads in the log, and a check on `--resume` that the
# teacher's file is the one the run began with.
_base_ = './default_runtime.py'
default_hooks = dict(
    head_weight=dict(type='HeadWeightHook', interval=100),
    teacher_file=dict(type='TeacherFileHook'))
