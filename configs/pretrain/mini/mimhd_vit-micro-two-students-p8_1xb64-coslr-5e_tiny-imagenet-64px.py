# Two students from one pass of the mini MAE: the mini MIM-HD's own, 96 wide, and one of half its width and heads. Each
# learns what it would in a run of its own with this seed, for the price of one teacher.
# Command: python tools/train.py \
#     configs/pretrain/mini/mimhd_vit-micro-two-students-p8_1xb64-coslr-5e_tiny-imagenet-64px.py
# Needs the teacher: configs/pretrain/mini/mae_vit-mini-p8_1xb64-coslr-20e_tiny-imagenet-64px.py first.
# Fine-tune one: --cfg-options model.backbone.init_cfg.checkpoint=FILE \
#     model.backbone.init_cfg.prefix=students.micro.backbone.
_base_ = './mimhd_vit-micro-p8_1xb64-coslr-5e_tiny-imagenet-64px.py'

student = {key: value for key, value in _base_.model.items() if key not in ('target_generator', 'token_fraction')}
nano = dict(embed_dims=48, num_layers=8, num_heads=3, feedforward_channels=192)
model = dict(
    _delete_=True, type='MultiStudent', target_generator=_base_.model.target_generator,
    token_fraction=_base_.model.token_fraction,
    students=dict(micro=student, nano=dict(student, backbone=dict(student['backbone'], arch=nano))))
del student, nano

runner_type = 'mimhd_mm.MultiStudentRunner'
optim_wrapper = dict(constructor='StudentOptimWrapperConstructor')
