"""``PackedImages``: a data set of small images decoded once, in one file that is mapped into memory.

The file is in the safetensors format, written by ``tools/dataset_converters/pack_images.py``: a JSON header, then
``labels`` (N,) int64 unless there are none, then ``images`` (N, H, W, 3) uint8 in blue, green, red, the order of
mmpretrain's ``LoadImageFromFile``. The header's metadata hold the class names and a hash of the source's listing.
"""
import json
import math
import os
import struct
from pathlib import Path

import numpy as np
from mmpretrain.datasets import BaseDataset

from ..errors import UserInputError
from ..registry import DATASETS

FORMAT = 'mimhd_mm.packed_images.1'
MAX_HEADER = 100_000_000  # bytes (the limit of safetensors)
TOOL = 'tools/dataset_converters/pack_images.py'


class PackedFile:
    """Reads a file of packed images; copies and worker processes map it again at their first access.

    Args:
        path (str | Path): The file.

    Attributes:
        classes (tuple[str]): Names; empty without labels.
        labels (np.ndarray, optional): (N,) int64.
        shape (tuple): N, H, W, 3.
        metadata (dict[str, str]): What else the header says.

    Raises:
        UserInputError: If the file is missing, of another format or cut short.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        try:
            with open(path, 'rb') as file:
                length, = struct.unpack('<Q', file.read(8))
                if length > MAX_HEADER:
                    raise ValueError(f'a header of {length} bytes')
                header = json.loads(file.read(length))
                self.metadata = header['__metadata__']
                if self.metadata.get('format') != FORMAT:
                    raise ValueError(f'format {self.metadata.get("format")!r}')
                self.classes = tuple(json.loads(self.metadata['classes']))
                self.shape = tuple(header['images']['shape'])
                self.offset, end = (8 + length + offset for offset in header['images']['data_offsets'])
                if len(self.shape) != 4 or min(self.shape) < 0 or math.prod(self.shape) != end - self.offset:
                    raise ValueError(f'{end - self.offset} bytes for images of shape {self.shape}')
                self.labels = np.fromfile(file, '<i8', self.shape[0]) if 'labels' in header else None
        except FileNotFoundError as error:
            raise UserInputError(f'No file {self.path!r} of packed images; write it with {TOOL}, or set `file` to '
                                 f'where it is.') from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError,
                struct.error) as error:
            reason = f'{type(error).__name__}: {error}'.splitlines()[0]
            raise UserInputError(f'{self.path!r} is no file of packed images ({reason}); give one that {TOOL} '
                                 f'wrote.') from error
        if os.path.getsize(path) != end:
            raise UserInputError(f'{self.path!r} has {os.path.getsize(path)} bytes and its header says {end}; copy it '
                                 f'again, or write it again with {TOOL}.')
        self._images = None

    def __getitem__(self, index: int) -> np.ndarray:
        """A copy of one image (H, W, 3)."""
        if self._images is None:
            self._images = np.memmap(self.path, np.uint8, 'r', self.offset, self.shape)  # (N, H, W, 3)
        return np.array(self._images[index])

    def __len__(self) -> int:
        return self.shape[0]

    def __reduce__(self):
        # pickling or copying a mapping would read all of it
        return type(self), (self.path,)


@DATASETS.register_module()
class PackedImages(BaseDataset):
    """Images of a packed file, in the order of the data set that was packed.

    Samples come decoded: the pipeline is that of the plain data set without ``LoadImageFromFile``.

    Args:
        file (str): What ``tools/dataset_converters/pack_images.py`` wrote.
        with_label (bool): Whether samples carry ``gt_label``. Defaults to True.
        metainfo (dict, optional): Passed on; ``classes`` is filled in from the file.
        **kwargs: Arguments of mmpretrain's ``BaseDataset``: ``pipeline``, ``indices``, ``test_mode``.

    Raises:
        UserInputError: If the file is missing, of another format, cut short, or without the labels that are asked for.
    """

    def __init__(self, file: str, with_label: bool = True, metainfo: dict | None = None, **kwargs) -> None:
        self.packed = PackedFile(file)
        if with_label and self.packed.labels is None:
            raise UserInputError(f'{file!r} holds images without labels; set `with_label=False`, or pack a folder of '
                                 f'class folders.')
        self.with_label = with_label
        classes = {'classes': self.packed.classes} if self.packed.classes else {}
        super().__init__(ann_file='', metainfo={**classes, **(metainfo or {})}, **kwargs)

    def load_data_list(self) -> list[dict]:
        """The place in the file and, with labels, ``gt_label`` of every image."""
        if not self.with_label:
            return [dict(index=index) for index in range(len(self.packed))]
        return [dict(index=index, gt_label=label) for index, label in enumerate(self.packed.labels.tolist())]

    def get_data_info(self, idx: int) -> dict:
        """One sample as ``LoadImageFromFile`` would leave it: ``img`` (H, W, 3) uint8 and its shapes."""
        info = super().get_data_info(idx)
        index = info.pop('index')
        image = self.packed[index]  # (H, W, 3)
        return dict(info, img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2],
                    img_path=f'{self.packed.path}#{index}')

    def extra_repr(self) -> list[str]:
        """The file, for ``repr``."""
        return [f'Packed file: \t{self.packed.path}']
