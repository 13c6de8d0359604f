# What fine-tuning and linear probes add to the defaults: the checkpoint with the best validation accuracy is kept.
_base_ = './default_runtime.py'
default_hooks = dict(checkpoint=dict(save_best='accuracy/top1', rule='greater'))
