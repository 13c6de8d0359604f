"""Target generators: frozen teachers."""
from .mae_teacher import MAETeacher
from .masked_mae_teacher import MaskedMAETeacher

__all__ = ['MAETeacher', 'MaskedMAETeacher']
