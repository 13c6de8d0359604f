"""What a training survives: kills, damaged checkpoints, bad images, hostile files."""
