"""Measure a few training steps, and say how long a run takes and how to start it: what ``tools/plan.py`` does."""
