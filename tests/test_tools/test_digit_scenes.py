"""Scenes of digits: files, labels and splits, told apart by digits that are bars of ten widths."""
import filecmp

import cv2
import numpy as np
import pytest
from PIL import Image

from mimhd_mm.datasets.segmentation_check import check_pairs, list_pairs
from mimhd_mm.errors import UserInputError

from .commands import load_tool

digit_scenes = load_tool('digit_scenes.py')
BACKGROUND, GROUND, HEIGHT, INK = (getattr(digit_scenes, name) for name in ('BACKGROUND', 'GROUND', 'HEIGHT', 'INK'))
NOISE, SIDES, VOID, WIDTH = (getattr(digit_scenes, name) for name in ('NOISE', 'SIDES', 'VOID', 'WIDTH'))
write_digit_scenes = digit_scenes.write_digit_scenes


def bar_width(digit: int) -> int:
    return 2 * (digit + 2)


@pytest.fixture
def digits(tmp_path):
    """28 x 28 images: digit n is a bar 22 high and ``bar_width(n)`` wide; those of ``val`` have a hole."""
    for split in ('train', 'val'):
        for digit in range(10):
            image = np.zeros((28, 28), dtype=np.uint8)
            image[3:25, 3:3 + bar_width(digit)] = 255
            if split == 'val':
                image[10:18, 4:2 + bar_width(digit)] = 0
            (tmp_path / 'digits' / split / str(digit)).mkdir(parents=True)
            Image.fromarray(image).save(tmp_path / 'digits' / split / str(digit) / '0.png')
    return tmp_path / 'digits'


def read(folder, split):
    """Pairs of image and labels, each (H, W)."""
    pairs = list_pairs(folder / 'images' / split, folder / 'annotations' / split, img_suffix='.png')
    return [tuple(np.asarray(Image.open(path)) for path in pair) for pair in pairs]


def glyphs(labels):
    """Digit, box and mask of every connected digit of a label map."""
    for digit in range(10):
        number, components, stats, _ = cv2.connectedComponentsWithStats((labels == digit + 1).astype(np.uint8))
        for index in range(1, number):
            yield digit, stats[index, :4], components == index


def test_layout_is_ade20ks(digits, tmp_path):
    write_digit_scenes(digits, tmp_path / 'scenes', num_train=30, num_val=5)
    for split, number in (('training', 30), ('validation', 5)):
        pairs = list_pairs(tmp_path / 'scenes/images' / split, tmp_path / 'scenes/annotations' / split, '.png')
        report = check_pairs(pairs, 11, reduce_zero_label=True)
        assert report.images == report.annotations == report.checked == number
        assert report.sizes == {(WIDTH, HEIGHT)}
        assert max(report.labels) == BACKGROUND
    labels = {label for _, label_map in read(tmp_path / 'scenes', 'training') for label in np.unique(label_map)}
    assert labels == set(range(1, 12)) or labels == set(range(12))


def test_labels_are_where_the_digits_are(digits, tmp_path):
    """Every connected piece has the shape of the digit that its label names, and is ink in the image."""
    write_digit_scenes(digits, tmp_path / 'scenes', num_train=30, num_val=1)
    seen = 0
    for image, labels in read(tmp_path / 'scenes', 'training'):
        for digit, (left, top, width, height), mask in glyphs(labels):
            expected = bar_width(digit) / 22  # none is wider than high
            assert abs(width - expected * height) <= 1.5
            assert mask[top:top + height, left:left + width].all()
            assert SIDES[0] - 1 <= max(width, height) <= SIDES[1] + 1
            assert image[mask].min() > INK[0] / 2 and image[mask].std() < 30
            seen += 1
        assert image[labels == BACKGROUND].max() < GROUND[1] + 0.15 * INK[1] + 6 * NOISE
    assert seen > 60


def test_edges_of_strokes_are_void(digits, tmp_path):
    """Where a grey level is less than half the ink's; a soft-edged bar has such a rim."""
    soft = np.zeros((28, 28), dtype=np.uint8)
    soft[3:25, 3:25], soft[6:22, 6:22] = 80, 255
    for path in digits.rglob('*.png'):
        Image.fromarray(soft).save(path)
    write_digit_scenes(digits, tmp_path / 'scenes', num_train=5, num_val=1)
    for _, labels in read(tmp_path / 'scenes', 'training'):
        rim = cv2.dilate(((labels > VOID) & (labels < BACKGROUND)).astype(np.uint8), np.ones((3, 3))) > 0
        assert set(np.unique(labels[rim & (labels != BACKGROUND)])) >= {VOID}
        assert not (labels[rim] == BACKGROUND).any()  # nowhere does a digit touch the ground


def test_validation_scenes_hold_validation_digits_alone(digits, tmp_path):
    write_digit_scenes(digits, tmp_path / 'scenes', num_train=10, num_val=10)
    for split, solid in (('training', True), ('validation', False)):
        for _, labels in read(tmp_path / 'scenes', split):
            for digit, (left, top, width, height), mask in glyphs(labels):
                if digit > 3:  # a hole wide enough to be seen
                    assert mask[top + height // 2, left + width // 2] == solid


def test_same_seed_same_files(digits, tmp_path):
    for name, seed in (('one', 0), ('two', 0), ('three', 1)):
        write_digit_scenes(digits, tmp_path / name, num_train=3, num_val=2, seed=seed)
    names = sorted(str(path.relative_to(tmp_path / 'one')) for path in (tmp_path / 'one').rglob('*.png'))
    assert len(names) == 10
    assert filecmp.cmpfiles(tmp_path / 'one', tmp_path / 'two', names, shallow=False)[0] == names
    images = [name for name in names if name.startswith('images')]
    assert not filecmp.cmpfiles(tmp_path / 'one', tmp_path / 'three', images, shallow=False)[0]


def test_digit_without_images(digits, tmp_path):
    (tmp_path / 'scenes').mkdir()
    (tmp_path / 'scenes' / 'kept').touch()
    (digits / 'val' / '4' / '0.png').unlink()
    with pytest.raises(UserInputError, match=r"No digit in '.*val/4'"):
        write_digit_scenes(digits, tmp_path / 'scenes')
    assert (tmp_path / 'scenes' / 'kept').is_file()  # nothing was overwritten


def test_full_scene_leaves_digits_out(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(digit_scenes, 'DIGITS', (60, 60))
    write_digit_scenes(digits, tmp_path / 'scenes', num_train=2, num_val=1)
    for _, labels in read(tmp_path / 'scenes', 'training'):
        assert 0 < len(list(glyphs(labels))) < 60
