"""Images of every kind: decoded as people see them, or named, counted and replaced; never a dead worker."""
import logging
import os
import re
from pathlib import Path

import numpy as np
import pytest
from mmengine.dataset import default_collate
from mmengine.logging import MMLogger
from mmpretrain.datasets import CustomDataset
from mmpretrain.datasets.transforms import LoadImageFromFile
from PIL import Image
from torch.utils.data import DataLoader

from lab.robustness.bad_images import encoded, kinds, picture, write_kinds
from mimhd_mm.datasets import LoadAndCrop, LoadAnyImage
from mimhd_mm.datasets.decoding import MAX_IN_A_ROW, BadImage, decode_image, jpeg_frame
from mimhd_mm.engine.preflight import check_image_folder
from mimhd_mm.errors import UserInputError, root_cause
from mimhd_mm.registry import DATASETS

from ..conftest import read_config

CONFIG = Path(__file__).parents[2] / 'configs' / '_base_' / 'datasets' / 'tiny-imagenet_64px.py'
KINDS = kinds()


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """One file of each kind, by name."""
    return write_kinds(tmp_path_factory.mktemp('kinds'))


@pytest.fixture
def warnings():
    """What is logged as a warning."""
    lines, logger = [], MMLogger.get_current_instance()
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_there_are_enough_kinds(files):
    assert len(files) >= 30 and sum(kind.size is None for kind in KINDS.values()) >= 10


@pytest.mark.parametrize('name', [name for name, kind in KINDS.items() if kind.size])
def test_decoded_as_people_see_it(name, files):
    kind, path = KINDS[name], str(files[name])
    results = LoadAnyImage()(dict(img_path=path))
    image = results['img']
    assert image.shape == (*kind.size, 3) and image.dtype == np.uint8
    assert results['img_shape'] == results['ori_shape'] == kind.size
    found = image[kind.size[0] // 4, kind.size[1] // 4][::-1]
    assert np.abs(found.astype(int) - kind.colour).max() <= 3
    for seed in range(3):
        np.random.seed(seed)
        assert LoadAndCrop(16)(dict(img_path=path))['img'].shape == (16, 16, 3)


def test_a_turned_picture_is_upright(files):
    """A turn by 90 degrees clockwise takes the blue quarter from lower right to lower left."""
    image = decode_image(files['JPEG turned by EXIF'].read_bytes())
    height, width = image.shape[:2]
    blue = image[..., 0] > 150  # (H, W)
    assert blue[3 * height // 4, width // 4] and not blue[3 * height // 4, 3 * width // 4]


@pytest.mark.parametrize('name', [name for name, kind in KINDS.items() if not kind.size])
def test_bad_files_are_named_with_a_reason(name, files):
    if name not in files:
        pytest.skip('not to be made on this machine')
    for load in (LoadAnyImage(), LoadAndCrop(16)):
        with pytest.raises(UserInputError, match=re.escape(str(files[name]))) as caught:
            load(dict(img_path=str(files[name])))
        assert '\n' not in str(caught.value) and re.search(r'decoded \(.+\);', str(caught.value))
        assert 'BytesIO' not in str(caught.value)


@pytest.mark.parametrize('name', ['JPEG', 'progressive JPEG', 'grey JPEG', 'PNG', 'JPEG turned by EXIF'])
def test_ordinary_images_are_what_mmpretrain_makes_of_them(name, files):
    expected = LoadImageFromFile()(dict(img_path=str(files[name])))['img']
    assert np.array_equal(LoadAnyImage()(dict(img_path=str(files[name])))['img'], expected)


def test_the_end_of_a_thumbnail_is_not_the_end(tmp_path):
    """A photograph's EXIF block holds a small JPEG with an end of its own."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8))
    content = encoded(noise)
    thumbnail = encoded(picture(8, 8))
    content = content[:2] + b'\xff\xe1' + (len(thumbnail) + 2).to_bytes(2, 'big') + thumbnail + content[2:]
    assert jpeg_frame(content) == ((200, 200), True) and decode_image(content).shape == (200, 200, 3)
    short = content[:len(content) // 2]
    assert b'\xff\xd9' in short and jpeg_frame(short) == ((200, 200), False)
    with pytest.raises(BadImage, match='truncated'):
        decode_image(short)


def test_every_cut_and_many_flips_end_in_pixels_or_a_reason():
    """300 damaged files, none of which raises anything else."""
    random = np.random.default_rng(0)
    refused = 0
    for content in (encoded(picture(), format) for format in ('JPEG', 'PNG', 'GIF', 'TIFF', 'WEBP')):
        for step in range(60):
            damaged = bytearray(content)
            if step % 2:
                damaged = damaged[:random.integers(len(content))]
            else:
                damaged[random.integers(min(len(content), 400))] ^= 1 << random.integers(8)
            try:
                image = decode_image(bytes(damaged))
                assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
            except BadImage as error:
                assert str(error)
                refused += 1
    assert refused > 100


@pytest.fixture
def tiny(tmp_path, files):
    """Tiny ImageNet's layout: 12 good images, and one of each bad kind."""
    root = tmp_path / 'tin'
    for split in ('train', 'val'):
        (root / split / 'n01').mkdir(parents=True)
    for index in range(12):
        Image.new('RGB', (8, 8), (20 * index, 0, 0)).save(root / 'train' / 'n01' / f'good_{index}.png')
    for index, (name, path) in enumerate(files.items()):
        if KINDS[name].size is None and name != 'folder named .jpg':
            os.symlink(path, root / 'train' / 'n01' / f'bad_{index}.jpg')
    return root


def build(root, **changes):
    cfg = read_config(CONFIG).train_dataloader.dataset
    cfg.data_root = str(root)
    cfg.pipeline = [dict(cfg.pipeline[0], **changes), dict(type='PackInputs')]
    return DATASETS.build(cfg)


def epoch(dataset, workers: int):
    loader = DataLoader(dataset, batch_size=4, num_workers=workers, collate_fn=default_collate)
    return [sample.img_path for batch in loader for sample in batch['data_samples']]


def test_bad_images_are_replaced_named_and_counted(tiny, warnings):
    """By the base config; each once in the log however often it is met; the same seed takes the same in their place."""
    dataset = build(tiny)
    bad = [info['img_path'] for info in dataset.load_data_list() if Path(info['img_path']).name[:4] == 'bad_']
    assert len(bad) >= 10
    epochs = []
    for seed in (0, 0, 1):
        np.random.seed(seed)
        epochs.append([dataset[index]['data_samples'].img_path for index in range(len(dataset))])
    assert epochs[0] == epochs[1] != epochs[2]
    for paths in epochs:
        assert len(paths) == len(dataset) and all(Path(path).name[:5] == 'good_' for path in paths)
    assert len(warnings) == len(bad)
    for path in bad:
        assert sum(repr(path) in line for line in warnings) == 1
    assert f'Bad image {len(bad)} (at most 100)' in warnings[-1]


def test_workers_live_on(tiny):
    paths = epoch(build(tiny), workers=2)
    assert len(paths) == len(build(tiny)) and all(Path(path).name[:5] == 'good_' for path in paths)


@pytest.mark.parametrize('workers', [0, 1])
def test_too_many_bad_images_stop_the_run(tiny, workers):
    """With a sentence that names some; from a loader process, too."""
    with pytest.raises(UserInputError) as caught:
        epoch(build(tiny, max_bad=3), workers)
    sentence = str(root_cause(caught.value))
    assert '\n' not in sentence and sentence.startswith('4 images, more than max_bad=3, cannot be decoded')
    assert sentence.count('/bad_') == 3


def test_nothing_but_bad_images_ends_in_a_sentence(tmp_path):
    """Fewer files than may be bad: drawing others would go on for a thousand times."""
    (tmp_path / 'a').mkdir()
    for index in range(3):
        (tmp_path / 'a' / f'{index}.jpg').write_bytes(b'')
    dataset = CustomDataset(data_root=str(tmp_path), pipeline=[dict(type='mimhd_mm.LoadAnyImage', max_bad=50)])
    with pytest.raises(UserInputError, match=f'{MAX_IN_A_ROW} images in a row'):
        dataset[0]


def test_testing_leaves_no_image_out(tiny):
    dataset = CustomDataset(data_root=str(tiny / 'train'), pipeline=[dict(type='mimhd_mm.LoadAnyImage')],
                            test_mode=True)
    with pytest.raises(UserInputError, match=r'bad_\d+\.jpg'):
        for index in range(len(dataset)):
            dataset[index]


@pytest.mark.parametrize('max_bad', [-1, 1.5, None])
def test_bound_is_a_number(max_bad):
    with pytest.raises(UserInputError, match='max_bad'):
        LoadAnyImage(max_bad=max_bad)


def test_one_bad_file_does_not_keep_a_run_from_starting(tiny, tmp_path):
    """Nor do nine of the first ten; a folder of nothing else is refused."""
    check_image_folder('train', dict(data_root=str(tiny), data_prefix='train'))
    (tmp_path / 'bad').mkdir()
    for index in range(12):
        (tmp_path / 'bad' / f'{index}.jpg').write_bytes(b'')
    with pytest.raises(UserInputError, match='cannot be decoded'):
        check_image_folder('train', dict(data_root=str(tmp_path / 'bad')))
    Image.new('RGB', (8, 8)).save(tmp_path / 'bad' / 'good.png')
    for index in range(3):
        (tmp_path / 'bad' / f'{index}.jpg').unlink()
    check_image_folder('train', dict(data_root=str(tmp_path / 'bad')))
