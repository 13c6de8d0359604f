"""Parts of data sets by links."""
import os

import pytest
from PIL import Image

from mimhd_mm.datasets import TinyImageNet
from mimhd_mm.datasets.image_part import link_part

from ..test_tools.commands import error_of


@pytest.fixture(scope='module')
def classes(tmp_path_factory):
    """Six classes of seven training and two validation images."""
    root = tmp_path_factory.mktemp('classes')
    for split, number in (('train', 7), ('val', 2)):
        for label in 'abcdef':
            (root / split / label / 'images').mkdir(parents=True)
            for i in range(number):
                Image.new('RGB', (4, 4), (i, i, i)).save(root / split / label / 'images' / f'{label}_{i}.png')
    return root


def test_a_part_is_evenly_spaced_links(classes, tmp_path):
    made = link_part(classes, tmp_path / 'part', classes=3, per_class=3)
    assert made == dict(classes=3, train=9, val=6)
    files = sorted(path.relative_to(tmp_path / 'part').as_posix() for path in (tmp_path / 'part').rglob('*.png'))
    assert files == [f'train/{label}/images/{label}_{i}.png' for label in 'ace' for i in (0, 2, 4)] + \
        [f'val/{label}/images/{label}_{i}.png' for label in 'ace' for i in (0, 1)]
    link = tmp_path / 'part' / files[0]
    assert link.is_symlink() and link.read_bytes() == (classes / files[0]).read_bytes()
    assert len(TinyImageNet(str(tmp_path / 'part'), pipeline=[])) == 9
    assert link_part(classes, tmp_path / 'all') == dict(classes=6, train=42, val=12)


@pytest.mark.parametrize('arguments, named', [
    (['--classes', 7], '6 classes'), (['--per-class', 8], '7 images'), (['--classes', 0], '1 to 6')])
def test_a_part_that_is_not_there(classes, tmp_path, arguments, named):
    assert named in error_of('dataset_converters/take_part.py', classes, tmp_path / 'part', *arguments)
    assert not (tmp_path / 'part').exists()


def test_a_part_overwrites_nothing(classes, tmp_path):
    assert 'exists already' in error_of('dataset_converters/take_part.py', classes, tmp_path)
    assert 'train/<class>' in error_of('dataset_converters/take_part.py', tmp_path, tmp_path / 'new')
    assert not os.listdir(tmp_path)
