"""Files of weights on the disk."""
