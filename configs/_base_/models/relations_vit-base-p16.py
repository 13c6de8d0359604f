# What MIM-HD and TinyMIM share: a ViT-B student and MAE ViT-L's 18th block as the teacher (paper, Table 4). Head counts
# are filled in by the algorithm. Children change `backbone.arch` alone. The teacher's weights are kept in the type of the
# schedule's mixed precision: change both, `model.target_generator.dtype` and `optim_wrapper.dtype`.
model = dict(
    backbone=dict(type='RelationViT', arch='base', img_size=224, patch_size=16),
    target_generator=dict(
        type='MAETeacher', arch='large', img_size=224, patch_size=16, block=18, dtype='bfloat16',
        checkpoint='checkpoints/mae_vit-large-p16_8xb512-fp16-coslr-1600e_in1k_20220825-cc7e98c9.pth'),
    head=dict(
        type='RelationDistillHead', pairs=('qk', 'vv'),
        loss=dict(type='RelationDistillLoss', criterion='KL')))
