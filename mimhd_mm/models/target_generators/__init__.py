"""Target generators: frozen teachers."""
from .cached_teacher import CachedTeacher
from .mae_teacher import MAETeacher
from .masked_mae_teacher import MaskedMAETeacher

__all__ = ['CachedTeacher', 'MAETeacher', 'MaskedMAETeacher']
