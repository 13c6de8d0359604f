"""Experiments on this project that are no part of what is installed."""
