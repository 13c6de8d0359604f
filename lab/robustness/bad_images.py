"""Every kind of image file that a data set of a million holds: made here, for the tests and for a table."""
import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

ORIENTATION = 0x0112  # EXIF tag; 6: to be turned by 90 degrees clockwise


class Kind(NamedTuple):
    """A kind of image file.

    Attributes:
        make (callable): Writes one to a path.
        size (tuple, optional): Height and width in pixels of what it shows; None where it cannot be decoded.
        colour (tuple, optional): Red, green and blue that its upper left quarter shows, if that is told.
    """
    make: Callable[[Path], object]
    size: tuple | None = None
    colour: tuple | None = None


def picture(width: int = 60, height: int = 40) -> Image.Image:
    """Red, with its lower right quarter blue; what an image shows, and how it is turned, is seen from that."""
    pixels = np.full((height, width, 3), (200, 40, 30), dtype=np.uint8)
    pixels[height // 2:, width // 2:] = (20, 60, 220)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, format: str = 'JPEG', **options) -> bytes:
    """An image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format, **({'quality': 95} if format == 'JPEG' else {}), **options)
    return buffer.getvalue()


def kinds() -> dict[str, Kind]:
    """All kinds by name. Those of Unix (a pipe, permissions) need one."""
    def of(content: Callable[[], bytes], size=(40, 60), colour=(200, 40, 30)) -> Kind:
        return Kind(lambda path: path.write_bytes(content()), size, colour)

    def bad(content: Callable[[], bytes]) -> Kind:
        return of(content, None, None)

    red = (200, 40, 30)
    turned = Image.Exif()
    turned[ORIENTATION] = 6
    half_clear = picture().convert('RGBA')
    half_clear.paste((0, 0, 0, 0), (0, 0, 60, 20))  # the upper half: black that nobody sees
    grey16 = Image.fromarray(np.full((40, 60), 0x64FF, dtype=np.uint16))
    grey_alpha = Image.merge('LA', (Image.new('L', (60, 40), 100), Image.new('L', (60, 40), 255)))
    jpeg = encoded(picture())
    return {
        'JPEG': of(lambda: jpeg),
        'PNG': of(lambda: encoded(picture(), 'PNG')),
        'progressive JPEG': of(lambda: encoded(picture(), progressive=True)),
        'CMYK JPEG': of(lambda: encoded(picture().convert('CMYK'))),
        'grey JPEG': of(lambda: encoded(picture().convert('L')), colour=(87, 87, 87)),
        'JPEG turned by EXIF': of(lambda: encoded(picture(), exif=turned), size=(60, 40)),
        'JPEG with garbage after its end': of(lambda: jpeg + os.urandom(5000)),
        'JPEG with a broken EXIF block': of(lambda: encoded(picture(), exif=b'Exif\0\0' + b'\xff' * 40)),
        '16-bit grey PNG': of(lambda: encoded(grey16, 'PNG'), colour=(100, 100, 100)),
        'palette PNG': of(lambda: encoded(picture().quantize(8), 'PNG')),
        'palette PNG with transparency': of(lambda: encoded(half_clear.quantize(8), 'PNG'), colour=(255, 255, 255)),
        'RGBA PNG': of(lambda: encoded(half_clear, 'PNG'), colour=(255, 255, 255)),
        'grey PNG with alpha': of(lambda: encoded(grey_alpha, 'PNG'), colour=(100, 100, 100)),
        '1-bit PNG': of(lambda: encoded(Image.new('1', (60, 40), 1), 'PNG'), colour=(255, 255, 255)),
        'GIF named .jpg': of(lambda: encoded(picture(), 'GIF')),
        'WebP named .jpg': of(lambda: encoded(picture(), 'WEBP', lossless=True)),
        'BMP named .jpg': of(lambda: encoded(picture(), 'BMP')),
        'TIFF named .jpg': of(lambda: encoded(picture(), 'TIFF')),
        '1 x 1 pixel': of(lambda: encoded(Image.new('RGB', (1, 1), red), 'PNG'), size=(1, 1)),
        '10,000 pixels wide': of(lambda: encoded(picture(10_000, 30)), size=(30, 10_000)),
        'JPEG cut short': bad(lambda: jpeg[:len(jpeg) * 2 // 3]),
        'JPEG cut in its header': bad(lambda: jpeg[:100]),
        'PNG cut short': bad(lambda: _cut_png()),
        '0 bytes': bad(lambda: b''),
        'text named .jpg': bad(lambda: b'<html>404 not found</html>'),
        'random bytes named .jpg': bad(lambda: os.urandom(2000)),
        'random bytes after a JPEG mark': bad(lambda: b'\xff\xd8\xff\xe0' + os.urandom(2000)),
        'PNG of 60,000 x 60,000 pixels (a bomb)': bad(_bomb),
        '32-bit TIFF': bad(lambda: encoded(Image.new('F', (60, 40), 1e6), 'TIFF')),
        'folder named .jpg': Kind(lambda path: path.mkdir()),
        'link to nothing': Kind(lambda path: path.symlink_to(path.with_name('gone.jpg'))),
        'pipe named .jpg': Kind(lambda path: os.mkfifo(path)),
        'file without read permission': Kind(lambda path: (path.write_bytes(jpeg), path.chmod(0))),
    }


def write_kinds(folder: str | Path) -> dict[str, Path]:
    """Write one of each kind into a folder, as ``<number>.jpg``; those that this machine cannot make are left out.

    A file without read permission is one to others than the system's administrator only.

    Returns:
        dict: Name -> path.
    """
    folder, paths = Path(folder), {}
    for number, (name, kind) in enumerate(kinds().items()):
        if name == 'file without read permission' and (not hasattr(os, 'geteuid') or os.geteuid() == 0):
            continue
        path = folder / f'{number:02d}.jpg'
        kind.make(path)
        paths[name] = path
    return paths


def _cut_png() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), 'PNG')
    return content[:len(content) // 2]


def _bomb() -> bytes:
    """A small PNG whose header tells of 60,000 x 60,000 pixels."""
    content = bytearray(encoded(picture(), 'PNG'))
    content[16:24] = struct.pack('>II', 60_000, 60_000)
    content[29:33] = struct.pack('>I', zlib.crc32(bytes(content[12:29])))
    return bytes(content)
