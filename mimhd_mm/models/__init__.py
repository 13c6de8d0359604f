"""Models: see each file's first line for what it holds."""
