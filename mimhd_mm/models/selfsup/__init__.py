"""Algorithms."""
from .dmae import DMAE
from .mimhd import MIMHD
from .multi_student import MultiStudent, students_of
from .relation_block import RelationBlock
from .relation_distiller import RelationDistiller
from .tinymim import TinyMIM

__all__ = ['DMAE', 'MIMHD', 'MultiStudent', 'RelationBlock', 'RelationDistiller', 'TinyMIM', 'students_of']
