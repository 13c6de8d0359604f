"""Measure a few training steps and predict how long a run takes; ``tools/plan.py`` uses it."""
