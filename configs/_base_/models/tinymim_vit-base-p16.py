# TinyMIM with a ViT-B student. From the public code (OliverRensu/TinyMIM: models_tinymim.py, models_teacher.py, vit.py):
# the student's last block has the teacher's head count, relations are compared head to head with the [class] token
# among them, drop path is 0.1 in every block but the last. ViT-S and ViT-Ti have ViT-L for a teacher here too, as in
# MIM-HD's comparison: so 16 heads in that block and deit-tiny's 3 in ViT-Ti's others (there ViT-B's 12, and 6). The
# head count must be given again where the student is used, as the fine-tuning and segmentation configs do. The
# teacher's decoder is not used: any MAE file will do.
_base_ = './relations_vit-base-p16.py'
model = dict(
    type='TinyMIM',
    backbone=dict(relation_heads=16, constant_drop_path=0.1),
    head=dict(matcher=dict(type='OneToOneHeadMatcher'), with_cls_token=True))
