# MIM-HD's ViT-Ti, ViT-S and ViT-B (Table 1) from one pass of the teacher: what the three runs of
# mimhd_vit-{tiny,small,base}-p16_8xb512-amp-coslr-100e_in1k.py are for. Half of their images a step and two steps an
# update (our choice): batch, rate and schedule are theirs.
# Command: bash tools/dist_train.sh configs/pretrain/mimhd_vit-tiny-small-base-p16_8xb256-amp-coslr-100e_in1k.py 8
# Fine-tune one: --cfg-options model.backbone.init_cfg.checkpoint=FILE \
#     model.backbone.init_cfg.prefix=students.small.backbone.
# Time: not run. Result: not run (paper, three runs: 75.7, 82.3 and 84.8 top-1 after fine-tuning).
_base_ = './mimhd_vit-base-p16_8xb512-amp-coslr-100e_in1k.py'

student = {key: value for key, value in _base_.model.items() if key not in ('target_generator', 'token_fraction')}
model = dict(
    _delete_=True, type='MultiStudent', target_generator=_base_.model.target_generator,
    token_fraction=_base_.model.token_fraction,
    students=dict(
        tiny=dict(student, backbone=dict(student['backbone'], arch='deit-tiny')),
        small=dict(student, backbone=dict(student['backbone'], arch='deit-small')),
        base=student))
del student

runner_type = 'mimhd_mm.MultiStudentRunner'
train_dataloader = dict(batch_size=256)
optim_wrapper = dict(constructor='StudentOptimWrapperConstructor', accumulative_counts=2)
auto_scale_lr = dict(base_batch_size=2048)
