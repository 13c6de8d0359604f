"""Decode any image file or say why it cannot be decoded; replace bad images while loading."""
import io
import logging
import os
import struct
from typing import NamedTuple

import mmcv
import numpy as np
from mmengine import fileio
from mmengine.logging import print_log
from PIL import Image, ImageOps, UnidentifiedImageError
from torch.utils.data import get_worker_info

from ..errors import UserInputError

MAX_PIXELS = 178_956_970  #: of one image, half a gigabyte; Pillow's limit for decompression bombs
MAX_IN_A_ROW = 100  #: images that cannot be decoded, one after the other, before a loader stops (our choice)
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # the JPEG markers that tell sizes


class BadImage(Exception):
    """An image that cannot be decoded; the message is the reason."""


class JPEGFrame(NamedTuple):
    """What the header of a JPEG says.

    Attributes:
        size (tuple): Height and width in pixels as stored, before any turn by EXIF.
        plain (bool): Whether it is whole and has 1 or 3 components of 8 bits.
    """
    size: tuple[int, int]
    plain: bool


def read_bytes(path: str, backend_args: dict | None = None) -> bytes:
    """The content of a file.

    Raises:
        BadImage: If there is none, or it is not a regular file: reading a pipe could block for ever.
    """
    if '://' not in path and not os.path.isfile(path):
        raise BadImage('a folder' if os.path.isdir(path) else 'no regular file' if os.path.exists(path) else
                       'a link to nothing' if os.path.islink(path) else 'no such file')
    try:
        return fileio.get(path, backend_args=backend_args)
    except OSError as error:
        raise BadImage(error.strerror or str(error)) from error


def decode_image(content: bytes) -> np.ndarray:
    """Decode an image file: turned upright by its EXIF tag, on white where it is transparent (our choice).

    A whole JPEG of 1 or 3 components with 8 bits is decoded by OpenCV, to the pixels of mmpretrain's
    ``LoadImageFromFile``. Everything else is decoded by Pillow, which reports truncated files, where OpenCV fills in
    grey. CMYK is converted. Of 16 bits the upper 8 are kept, of several frames the first.

    Args:
        content (bytes): The file.

    Returns:
        np.ndarray: (H, W, 3) uint8 in blue, green, red.

    Raises:
        BadImage: If it cannot be decoded or has more than :data:`MAX_PIXELS`.
    """
    if not content:
        raise BadImage('0 bytes')
    try:
        frame = jpeg_frame(content)
        if frame is not None and frame.plain:
            check_size(*frame.size)
            image = mmcv.imfrombytes(content, flag='color', backend='cv2')  # (H, W, 3)
            if image is not None:
                return image
        with Image.open(io.BytesIO(content)) as file:
            check_size(file.height, file.width)
            image = np.asarray(to_rgb(ImageOps.exif_transpose(file), file.format))  # (H, W, 3)
        return np.ascontiguousarray(image[..., ::-1])
    except Image.DecompressionBombError as error:
        raise BadImage(f'more than {MAX_PIXELS} pixels') from error
    except UnidentifiedImageError as error:
        raise BadImage('no image of a known format') from error
    except BadImage:
        raise
    except Exception as error:  # decoders raise many types for damaged files
        raise BadImage((str(error) or type(error).__name__).splitlines()[0][:160]) from error


def check_size(height: int, width: int) -> None:
    """Raise :class:`BadImage` if an image has more than :data:`MAX_PIXELS`."""
    if height * width > MAX_PIXELS:
        raise BadImage(f'{width} x {height} pixels, more than {MAX_PIXELS}')


def to_rgb(image: Image.Image, format: str | None) -> Image.Image:
    """Convert an image of any of Pillow's modes to RGB.

    Args:
        image (Image.Image): The image.
        format (str, optional): Of its file. In PNG and PPM what Pillow calls 32 bits are 16.

    Raises:
        BadImage: If its values have no range that is known (32 bits, floating point).
    """
    if image.mode.startswith('I;16') or (image.mode == 'I' and format in ('PNG', 'PPM')):
        grey = np.asarray(image).astype(np.int64) >> 8  # (H, W), of 16 bits the upper 8
        return Image.fromarray(grey.astype(np.uint8)).convert('RGB')
    if image.mode in ('I', 'F'):
        raise BadImage(f'pixels of 32 bits (mode {image.mode})')
    if image.mode in ('LA', 'La', 'PA', 'RGBA', 'RGBa') or 'transparency' in image.info:
        image = image.convert('RGBA')
        return Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image).convert('RGB')
    return image.convert('RGB')


def jpeg_frame(content: bytes) -> JPEGFrame | None:
    """Read the segments of a JPEG up to the first scan and search for an end marker; None if it is not a JPEG.

    Segments are skipped, because thumbnails in them have end markers of their own. Bytes after the end are ignored.
    """
    if content[:2] != b'\xff\xd8':
        return None
    place, frame = 2, None
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker, length = content[place + 1], struct.unpack_from('>H', content, place + 2)[0]
        if marker == 0xFF:  # padding
            place += 1
            continue
        if marker in _FRAMES and place + 10 <= len(content):
            frame = struct.unpack_from('>BHHB', content, place + 4)  # bits, height, width, components
        if marker == 0xDA:  # the first scan
            if frame is None:
                return None
            bits, height, width, components = frame
            whole = content.find(b'\xff\xd9', place) >= 0
            return JPEGFrame((height, width), whole and bits == 8 and components in (1, 3) and height * width > 0)
        place += 2 + length
    return None


class BadImages:
    """Counts images that cannot be decoded and stops the loader if there are too many.

    Each loader process counts for itself as long as it lives (with ``persistent_workers``, the whole run). A run with W
    of them on each of R ranks replaces at most ``max_bad`` x W x R files.

    Args:
        max_bad (int): Number of different files that may be replaced; 0 stops at the first.
    """

    def __init__(self, max_bad: int) -> None:
        if not isinstance(max_bad, int) or max_bad < 0:
            raise UserInputError(f'max_bad is a number of files, 0 or more, not {max_bad!r}.')
        self.max_bad = max_bad
        self.found: dict[str, str] = {}
        self.in_a_row = 0

    def add(self, path: str, reason: BadImage) -> None:
        """Count a bad image and log it once. After this call the loader takes another image.

        Raises:
            UserInputError: If there are too many.
        """
        if not self.max_bad:
            raise UserInputError(f'The image {path!r} cannot be decoded ({reason}); remove or replace it.') from reason
        self.in_a_row += 1
        new = path not in self.found
        self.found[path] = str(reason)
        if len(self.found) > self.max_bad or self.in_a_row >= MAX_IN_A_ROW:
            many = (f'{self.in_a_row} images in a row' if self.in_a_row >= MAX_IN_A_ROW else
                    f'{len(self.found)} images, more than max_bad={self.max_bad},')
            some = '; '.join(f'{name!r} ({why})' for name, why in list(self.found.items())[-3:])
            raise UserInputError(f'{many} cannot be decoded: {some}; repair or remove them, or raise max_bad of the '
                                 f'transform that loads images.') from reason
        if new:
            worker = get_worker_info()
            where = '' if worker is None else f' of loader process {worker.id}'
            print_log(f'Bad image {len(self.found)} (at most {self.max_bad}){where}: {path!r} cannot be decoded '
                      f'({reason}); another image takes its place.', logger='current', level=logging.WARNING)

    def good(self) -> None:
        """Record that an image was decoded."""
        self.in_a_row = 0
