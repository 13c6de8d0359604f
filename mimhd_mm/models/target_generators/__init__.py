"""Target generators: frozen teachers."""
from .mae_teacher import MAETeacher

__all__ = ['MAETeacher']
