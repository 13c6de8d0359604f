"""Find the image files of a folder."""
import os
from collections.abc import Iterator
from pathlib import Path

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')


def image_files(folder: str | Path) -> Iterator[Path]:
    """Every image of a folder and below, in no order; links to folders are followed, as mmpretrain's datasets do."""
    for root, _, names in os.walk(folder, followlinks=True):
        yield from (Path(root, name) for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES)
