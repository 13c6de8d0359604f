# TinyMIM in miniature: the mini student with the teacher's 8 heads in its last block.
_base_ = './relations_vit-micro-p8.py'
model = dict(
    type='TinyMIM',
    backbone=dict(relation_heads=8, constant_drop_path=0.1),
    head=dict(matcher=dict(type='OneToOneHeadMatcher'), with_cls_token=True))
