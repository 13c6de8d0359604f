"""``TinyMIM``: distillation of relations, head by head, the paper's baseline."""
from ...registry import MODELS
from .relation_distiller import RelationDistiller


@MODELS.register_module()
class TinyMIM(RelationDistiller):
    """Relations of the student's tapped block imitate those of the teacher's (Table 1's baseline).

    TinyMIM itself is this with ``OneToOneHeadMatcher``, the student's last block rebuilt with the teacher's head count
    (``backbone.relation_heads``) and the [class] token taking part (``head.with_cls_token=True``); its configs say so.

    Args:
        **kwargs: As of :class:`~mimhd_mm.models.selfsup.relation_distiller.RelationDistiller`.
    """
