"""After distillation: evaluate a student, and export it for other libraries."""
