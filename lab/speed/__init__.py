"""How long a training step takes, what it consists of, and what is around it."""
