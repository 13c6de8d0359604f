"""Scenes of handwritten digits with a class for every pixel: the demo's segmentation data set.

The sizes, numbers and grey levels below are our choice.
"""
from pathlib import Path

import numpy as np
from PIL import Image

from mimhd_mm.errors import UserInputError

WIDTH, HEIGHT = 96, 64  # pixels of a scene
DIGITS = (5, 8)  # in a scene, at least and at most; fewer where there is no more room
SIDES = (22, 28)  # the longer side of a digit, pixels
TRIES = 20  # places that are tried for a digit before it is left out
MARGIN = 1  # pixels between the boxes of two digits
GROUND, INK = (0, 60), (200, 255)  # grey levels
NOISE = 8.  # standard deviation, grey levels
VOID, BACKGROUND = 0, 11  # labels; the digits 0 to 9 are 1 to 10
FAINT, SOLID = 0.15, 0.5  # a pixel is void from so much ink on, and the digit's from so much
SPLITS = (('train', 'training'), ('val', 'validation'))


def write_digit_scenes(digits: str | Path, folder: str | Path, num_train: int = 400, num_val: int = 100,
                       seed: int = 0) -> None:
    """Write scenes in ADE20K's layout: ``images`` and ``annotations``, each with ``training`` and ``validation``.

    Training scenes are made of the training digits and validation scenes of the validation digits. The same digits and
    seed give the same files.

    Args:
        digits (str | Path): Folder with ``train/<digit>/*.png`` and ``val/<digit>/*.png``, white on black.
        folder (str | Path): Where the scenes go; must not exist, or be empty.
        num_train (int): Training scenes. Defaults to 400.
        num_val (int): Validation scenes. Defaults to 100.
        seed (int): Defaults to 0.

    Raises:
        UserInputError: If a digit has no image in one of the splits, or the folder holds something.
    """
    digits, folder = Path(digits), Path(folder)
    splits = [(target, [read_digits(digits / source / str(digit)) for digit in range(10)]) for source, target in SPLITS]
    if folder.is_dir() and any(folder.iterdir()):
        raise UserInputError(f'{str(folder)!r} is not empty and is left as it is; name another folder for the scenes.')
    for index, ((split, glyphs), number) in enumerate(zip(splits, (num_train, num_val))):
        random = np.random.default_rng([seed, index])
        images, annotations = folder / 'images' / split, folder / 'annotations' / split
        images.mkdir(parents=True)
        annotations.mkdir(parents=True)
        for scene in range(number):
            image, labels = compose_scene(glyphs, random)  # each (H, W)
            Image.fromarray(image).save(images / f'{scene:04d}.png')
            Image.fromarray(labels).save(annotations / f'{scene:04d}.png')


def read_digits(folder: Path) -> list[Image.Image]:
    """The images of a folder in the order of their names, grey, cut to the ink.

    Raises:
        UserInputError: If there is none with ink.
    """
    images = []
    for path in sorted(folder.glob('*.png')):
        with Image.open(path) as file:
            image = file.convert('L')
        if image.getbbox() is not None:
            images.append(image.crop(image.getbbox()))
    if not images:
        raise UserInputError(f'No digit in {str(folder)!r}; expected PNG files, white on black, as tools/quickstart.py '
                             f'writes them to train/<digit> and val/<digit>.')
    return images


def compose_scene(glyphs: list[list[Image.Image]], random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Lay digits of random size, place and brightness on a cloudy, noisy ground, beside each other.

    Ink covers the ground as the digit's grey levels say. Where it covers less than half, at the edge of a stroke, the
    pixel is neither's: void.

    Args:
        glyphs (list[list[Image.Image]]): Images of each digit, cut to the ink.
        random (np.random.Generator): Moves on.

    Returns:
        tuple: Image and labels, each (H, W), uint8.
    """
    clouds = Image.fromarray(random.uniform(*GROUND, (4, 6)).astype(np.float32))
    scene = np.asarray(clouds.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).copy()  # (H, W)
    labels = np.full((HEIGHT, WIDTH), BACKGROUND, dtype=np.uint8)
    taken = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for digit in random.integers(0, len(glyphs), random.integers(DIGITS[0], DIGITS[1] + 1)):
        glyph = glyphs[digit][random.integers(len(glyphs[digit]))]
        scale = random.uniform(*SIDES) / max(glyph.size)
        width, height = (max(1, round(side * scale)) for side in glyph.size)
        ink = np.asarray(glyph.resize((width, height), Image.Resampling.BILINEAR)) / 255.  # (h, w)
        for _ in range(TRIES):
            top, left = random.integers(HEIGHT - height + 1), random.integers(WIDTH - width + 1)
            around = (slice(max(0, top - MARGIN), top + height + MARGIN),
                      slice(max(0, left - MARGIN), left + width + MARGIN))
            if not taken[around].any():
                place = slice(top, top + height), slice(left, left + width)
                taken[place] = True
                scene[place] += ink * (random.uniform(*INK) - scene[place])
                labels[place] = np.where(ink >= SOLID, digit + 1, np.where(ink >= FAINT, VOID, BACKGROUND))
                break
    scene += random.normal(0., NOISE, scene.shape)
    return scene.clip(0, 255).astype(np.uint8), labels
