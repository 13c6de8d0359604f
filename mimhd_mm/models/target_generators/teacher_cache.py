"""``TeacherCache``: a teacher's q, k, v for fixed views of every image, in one file that is mapped into memory.

The file is in the safetensors format, written by ``tools/cache_teacher.py``: a JSON header, then ``qkv``
(images, views, 3, M1, 1 + n, d1) bfloat16, then, where the teacher saw a part of the patches, their numbers, ``seen``
(images, views, n) int16. The header's metadata say what the file was made with, each value as JSON.
"""
import json
import math
import os
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import UserInputError

FORMAT = 'mimhd_mm.teacher_cache.1'
MAX_HEADER = 100_000_000  # bytes (the limit of safetensors)
TOOL = 'tools/cache_teacher.py'
BYTES = 2  # of a number, in both tensors


@dataclass
class CacheSettings:
    """What a cache was made with.

    Attributes:
        teacher (str): Path of the MAE file.
        sha256 (str): Its hash, in hexadecimal.
        arch (dict): Four sizes of its encoder.
        img_size (int | list): Pixels.
        patch_size (int): Pixels.
        block (int): The tapped block, counted from 1.
        dtype (str, optional): That the encoder ran in; None is float32.
        token_fraction (float): Share of the patches that the teacher saw.
        num_views (int): K, views of each image.
        view_seed (int): Of :class:`~mimhd_mm.datasets.FixedViews`.
        dataset (dict): Config of the data set, with its pipeline.
        preprocessor (dict): ``type``, ``mean``, ``std`` and ``to_rgb`` of the data preprocessor.
        pixels (str): Hash of a few views.
    """
    teacher: str
    sha256: str
    arch: dict
    img_size: int | list
    patch_size: int
    block: int
    dtype: str | None
    token_fraction: float
    num_views: int
    view_seed: int
    dataset: dict
    preprocessor: dict
    pixels: str

    def to_metadata(self) -> dict[str, str]:
        """For the header of a file."""
        return dict(format=FORMAT, **{key: json.dumps(value) for key, value in asdict(self).items()})

    @classmethod
    def from_metadata(cls, metadata: dict[str, str]) -> 'CacheSettings':
        """The inverse.

        Raises:
            ValueError: If it is the header of another file.
            KeyError: If something is missing.
        """
        if metadata.get('format') != FORMAT:
            raise ValueError(f'format {metadata.get("format")!r}')
        return cls(**{field.name: json.loads(metadata[field.name]) for field in fields(cls)})


def header_of(settings: CacheSettings, shape: Sequence[int], num_seen: int | None) -> tuple[bytes, int]:
    """The beginning of a file, padded so that the tensors begin at a multiple of 8 bytes, and the bytes of the whole.

    Args:
        settings (CacheSettings): What it is made with.
        shape (Sequence[int]): Of ``qkv``: images, views, 3, M1, 1 + n, d1.
        num_seen (int, optional): n, where ``seen`` follows.
    """
    end = BYTES * math.prod(shape)
    content = {'__metadata__': settings.to_metadata(), 'qkv': dict(dtype='BF16', shape=shape, data_offsets=(0, end))}
    if num_seen is not None:
        seen = (*shape[:2], num_seen)
        start, end = end, end + BYTES * math.prod(seen)
        content['seen'] = dict(dtype='I16', shape=seen, data_offsets=(start, end))
    text = json.dumps(content).encode()
    text += b' ' * (-len(text) % 8)
    return struct.pack('<Q', len(text)) + text, 8 + len(text) + end


class TeacherCache:
    """Reads a file of a teacher's q, k, v; copies and other processes map it anew, on their first access.

    Args:
        path (str | Path): The file.

    Attributes:
        settings (CacheSettings): What it was made with.
        shape (tuple): Images, views, 3, M1, 1 + n, d1.
        partial (bool): Whether it holds a part of the patches, with their numbers.

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
            self.settings = CacheSettings.from_metadata(header['__metadata__'])
            self.shape = tuple(header['qkv']['shape'])
            self.partial = 'seen' in header
            places = {}
            for name in ('qkv', 'seen') if self.partial else ('qkv', ):
                shape, (start, end) = tuple(header[name]['shape']), header[name]['data_offsets']
                if len(shape) != (6 if name == 'qkv' else 3) or BYTES * math.prod(shape) != end - start:
                    raise ValueError(f'{end - start} bytes for {name} of shape {shape}')
                places[name] = 8 + length + start, shape
            size = 8 + length + end
        except FileNotFoundError as error:
            raise UserInputError(f'No file {self.path!r} with what a teacher gives; write it with {TOOL}, or set '
                                 f'model.target_generator.cache to where it is.') from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
            reason = f'{type(error).__name__}: {error}'.splitlines()[0]
            raise UserInputError(f'{self.path!r} is no file of what a teacher gives ({reason}); give one that {TOOL} '
                                 f'wrote.') from error
        if os.path.getsize(path) != size:
            raise UserInputError(f'{self.path!r} has {os.path.getsize(path)} bytes and its header says {size}; copy it '
                                 f'again, or write it again with {TOOL}.')
        self._places = places
        self._maps: dict[str, np.ndarray] = {}

    def qkv(self, images: Sequence[int], views: Sequence[int]) -> Tensor:
        """q, k and v for views of images, B numbers each: (B, 3, M1, 1 + n, d1) bfloat16."""
        return torch.from_numpy(self._rows('qkv', images, views)).view(torch.bfloat16)

    def seen(self, images: Sequence[int], views: Sequence[int]) -> Tensor:
        """Numbers of the patches that the teacher saw, (B, n) int64."""
        return torch.from_numpy(self._rows('seen', images, views)).long()  # (B, n)

    def _rows(self, name: str, images: Sequence[int], views: Sequence[int]) -> np.ndarray:
        """A copy of some rows of a tensor, as int16."""
        if name not in self._maps:
            offset, shape = self._places[name]
            self._maps[name] = np.memmap(self.path, '<i2', 'r', offset, shape)
        return np.array(self._maps[name][list(images), list(views)])

    def __len__(self) -> int:
        return self.shape[0]

    def __reduce__(self):
        # pickling or copying a mapping would read all of it
        return type(self), (self.path,)
