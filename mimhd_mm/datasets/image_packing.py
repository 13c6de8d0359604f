"""Decode a folder of images once and write them as one file of packed images."""
import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mmpretrain.datasets import CustomDataset
from mmpretrain.datasets.transforms import CenterCrop, ResizeEdge

from ..errors import UserInputError
from .load_any_image import LoadAnyImage
from .packed_images import FORMAT
from .tiny_imagenet import TinyImageNet

SUFFIXES = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')  # mmpretrain's CustomDataset
THREADS = 4
CHUNK = 1024  # images that are decoded before they are written


class Listing(NamedTuple):
    """The images of a folder in the order of its data set.

    Attributes:
        paths (list[str]): N files.
        labels (list[int], optional): N numbers; None without class folders.
        classes (tuple[str]): Names; empty without class folders.
        sha256 (str): Of every file's path below the folder, its size in bytes and its label.
    """
    paths: list[str]
    labels: list[int] | None
    classes: tuple[str, ...]
    sha256: str


def list_source(folder: str | Path) -> Listing:
    """List a folder as :class:`TinyImageNet` does where it is named ``train`` or ``val``, else as ``CustomDataset``.

    Raises:
        UserInputError: If the folder is missing, holds no image, or holds images beside its class folders.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserInputError(f'No folder {str(folder)!r}; give a folder of images, or of class folders with images.')
    found = [path for path in folder.rglob('*') if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not found:
        raise UserInputError(f'No image in {str(folder)!r} or below; expected {", ".join(SUFFIXES)}.')
    loose = [path for path in found if path.parent == folder]
    if loose and len(loose) < len(found):
        raise UserInputError(f'{str(folder)!r} holds images in folders and {len(loose)} beside them, {loose[0].name!r} '
                             f'for one; move them into class folders, or pack the folders one by one.')

    settings = dict(with_label=not loose, pipeline=[], serialize_data=False)
    path = folder.resolve()
    if path.name in TinyImageNet.SPLITS and not loose:
        dataset = TinyImageNet(path.parent, split=path.name, **settings)
    else:
        dataset = CustomDataset(data_root=str(path), extensions=SUFFIXES, **settings)
    samples = dataset.load_data_list()
    paths = [sample['img_path'] for sample in samples]
    labels = None if loose else [sample['gt_label'] for sample in samples]
    digest = hashlib.sha256()
    for number, name in enumerate(paths):
        if not os.path.isfile(name):
            raise UserInputError(f'No image {name!r}, which the data set lists; complete the data set.')
        label = '' if labels is None else labels[number]
        digest.update(f'{os.path.relpath(name, path)}\t{os.path.getsize(name)}\t{label}\n'.encode())
    return Listing(paths, labels, () if loose else tuple(dataset.metainfo['classes']), digest.hexdigest())


def pack_images(folder: str | Path, target: str | Path, size: int | None = None,
                progress: Callable[[Iterable, int], Iterable] = lambda items, total: items) -> dict:
    """Write every image of a folder into one file; it gets its name when it is complete.

    Args:
        folder (str | Path): See :func:`list_source`.
        target (str | Path): The file to write; must not exist.
        size (int, optional): Bring the short edge of every image to so many pixels (bicubic) and cut out the square in
            the middle (our choice, as in ImageNet evaluation). None takes images as they are. Defaults to None.
        progress (callable): From an iterable and its length to the same iterable, to show progress.

    Returns:
        dict: ``shape`` (N, H, W, 3), ``classes`` (int) and ``bytes``.

    Raises:
        UserInputError: If the target exists, the folder is not as :func:`list_source` wants it, an image does not
            decode, or sizes differ and ``size`` is None. No partly written file is left.
    """
    target = Path(target)
    refuse_existing(target)
    if size is not None and size < 1:
        raise UserInputError(f'--size {size} was given; expected 1 pixel or more.')
    listing = list_source(folder)
    load = Loader(size)
    shape = (len(listing.paths), *load(listing.paths[0]).shape)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f'.{target.name}.{os.getpid()}')
    try:
        with open(temporary, 'xb') as file:
            file.write(header(listing, shape, folder))
            file.write(np.array(listing.labels or [], dtype='<i8').tobytes())
            for path, image in progress(decoded(listing.paths, load), len(listing.paths)):
                if image.shape != shape[1:]:
                    raise UserInputError(
                        f'{path!r} has {image.shape[1]} x {image.shape[0]} pixels and {listing.paths[0]!r} '
                        f'{shape[2]} x {shape[1]}; give --size to bring all to one size.')
                file.write(image.tobytes())
            number = file.tell()
            file.flush()
            os.fsync(file.fileno())
        refuse_existing(target)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return dict(shape=shape, classes=len(listing.classes), bytes=number)


def refuse_existing(target: Path) -> None:
    """Raise a UserInputError if there is anything under that name."""
    if target.exists() or target.is_symlink():
        raise UserInputError(f'{str(target)!r} exists and is not overwritten; remove it or give another name.')


def header(listing: Listing, shape: tuple[int, ...], folder: str | Path) -> bytes:
    """The header of a safetensors file, padded so that labels begin at a multiple of 8 bytes."""
    labels = 0 if listing.labels is None else 8 * shape[0]
    end = labels + int(np.prod(shape, dtype=np.int64))
    content = {'__metadata__': dict(
        format=FORMAT, channels='blue, green, red', classes=json.dumps(listing.classes), source=str(folder),
        listing_sha256=listing.sha256)}
    if listing.labels is not None:
        content['labels'] = dict(dtype='I64', shape=shape[:1], data_offsets=(0, labels))
    content['images'] = dict(dtype='U8', shape=shape, data_offsets=(labels, end))
    text = json.dumps(content).encode()
    text += b' ' * (-len(text) % 8)
    return struct.pack('<Q', len(text)) + text


def decoded(paths: list[str], load: Callable[[str], np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Each path with its image (H, W, 3), decoded by a few threads, a chunk at a time."""
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(paths), CHUNK):
            chunk = paths[start:start + CHUNK]
            yield from zip(chunk, pool.map(load, chunk))


class Loader:
    """Decodes an image as pre-training pipelines do, and resizes it where ``size`` is given."""

    def __init__(self, size: int | None = None) -> None:
        self.transforms = [LoadAnyImage()]
        if size is not None:
            self.transforms += [ResizeEdge(size, edge='short', backend='pillow', interpolation='bicubic'),
                                CenterCrop(size)]

    def __call__(self, path: str) -> np.ndarray:
        """(H, W, 3) uint8 in blue, green, red.

        Raises:
            UserInputError: If it cannot be decoded.
        """
        results = dict(img_path=path)
        for transform in self.transforms:
            results = transform(results)
        return results['img']
