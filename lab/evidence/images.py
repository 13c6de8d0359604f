"""Packed images: a part of a file as a data set, and a file as batches for a frozen network."""
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from mmpretrain.structures import DataSample

from mimhd_mm.datasets.packed_images import PackedFile, PackedImages
from mimhd_mm.errors import UserInputError
from mimhd_mm.registry import DATASETS

#: images a forward pass of what is frozen
BATCH = 256


def evenly_spaced(number: int, total: int) -> list:
    """``number`` of the numbers from 0 to ``total`` - 1, at even distances."""
    return [place * total // number for place in range(number)]


@DATASETS.register_module()
class PackedPart(PackedImages):
    """``number`` images of a packed file at even distances; other arguments are the parent's.

    Raises:
        UserInputError: If the file has fewer.
    """

    def __init__(self, file: str, number: int, **kwargs) -> None:
        total = len(PackedFile(file))
        if number > total:
            raise UserInputError(f'{number} images were asked for and {file!r} has {total}; give a file with more.')
        super().__init__(file, indices=evenly_spaced(number, total), **kwargs)


class Batches:
    """A packed file, or a part of it, as batches of whole images with labels; iterates as often as asked.

    Args:
        file (Path): The file.
        number (int, optional): So many images at even distances. None is all. Defaults to None.
    """

    def __init__(self, file: Path, number: int | None = None) -> None:
        self.file = PackedFile(file)
        self.numbers = evenly_spaced(number or len(self.file), len(self.file))

    def __iter__(self) -> Iterator[dict]:
        for start in range(0, len(self.numbers), BATCH):
            numbers = self.numbers[start:start + BATCH]
            images = torch.from_numpy(np.stack([self.file[number] for number in numbers]))  # (B, H, W, 3)
            yield dict(inputs=images.permute(0, 3, 1, 2),  # (B, 3, H, W)
                       data_samples=[DataSample().set_gt_label(int(self.file.labels[number])) for number in numbers])
