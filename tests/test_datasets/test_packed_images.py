"""Faster loading: JPEGs decoded at the resolution that a crop needs, and images that were decoded beforehand."""
import copy
import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose, default_collate
from mmengine.model import BaseDataPreprocessor
from mmpretrain.datasets import CustomDataset
from mmpretrain.datasets.transforms import LoadImageFromFile, RandomResizedCrop
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file
from torch.utils.data import DataLoader

from mimhd_mm.datasets import LoadAndCrop, PackedImages, TinyImageNet
from mimhd_mm.datasets.image_packing import list_source, pack_images
from mimhd_mm.errors import UserInputError, root_cause
from mimhd_mm.evaluation import KNNProbe
from mimhd_mm.registry import DATASETS, TRANSFORMS

from ..conftest import read_config
from ..test_models.test_device_augmentation import CONFIGS, images

CLASSES = ('blobs', 'stripes')  # of image_folder


def smooth(width: int, height: int) -> Image.Image:
    """A picture without high frequencies: what reduced decoding leaves out is not there."""
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def save(folder, name: str, image: Image.Image, **options) -> str:
    image.save(folder / name, **options)
    return str(folder / name)


def both(path: str, seed: int, scale=(32, 24), **ranges):
    """The same draw by the two plain transforms and by LoadAndCrop; images, results and what is drawn next."""
    out = []
    crop = dict(scale=scale, **ranges)
    for steps in ([LoadImageFromFile(), RandomResizedCrop(**crop, backend='pillow', interpolation='bicubic')],
                  [LoadAndCrop(**crop)]):
        np.random.seed(seed)
        results = Compose(steps)(dict(img_path=path, gt_label=3))
        out.append((results, np.random.uniform()))
    (plain, next_plain), (fast, next_fast) = out
    assert next_plain == next_fast  # as many numbers were drawn
    assert fast['gt_label'] == 3 and fast['ori_shape'] == plain['ori_shape'] and fast['img_shape'] == plain['img_shape']
    assert fast['img'].shape == (*scale, 3) and fast['img'].dtype == np.uint8
    return plain['img'].astype(int), fast['img'].astype(int)


@pytest.mark.parametrize('suffix, options', [('.png', {}), ('.bmp', {}), ('.jpg', dict(quality=80))])
def test_whole_resolution_gives_the_same_pixels(suffix, options, tmp_path):
    """Noise; no side of a box reaches twice the output's. The file name says nothing: a PNG may be called .JPEG."""
    path = save(tmp_path, 'noise' + suffix, Image.fromarray(images(60, 44)), **options)
    for seed in range(12):
        plain, fast = both(path, seed, crop_ratio_range=(0.1, 1.0))
        assert np.array_equal(plain, fast)
    renamed = shutil.copy(path, tmp_path / 'renamed.JPEG')
    assert np.array_equal(*both(str(renamed), 0))


@pytest.mark.parametrize('mode', ['L', 'CMYK', 'RGB'])
@pytest.mark.parametrize('orientation', [1, 6, 3])
def test_reduced_resolution_gives_near_pixels(mode, orientation, tmp_path):
    """Boxes agree, so a smooth picture does to four grey levels; a box that is off by a pixel is off by more.

    So it is where EXIF turns the picture, which is then decoded whole.
    """
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path, 'a.jpg', smooth(333, 251).convert(mode), quality=98, exif=exif)
    for seed in range(6):
        plain, fast = both(path, seed, crop_ratio_range=(0.2, 1.0))
        assert np.abs(plain - fast).max() <= 4


def test_reduced_resolution_is_used_where_the_box_allows_it():
    crop = LoadAndCrop((32, 24))
    assert [crop.reduction(*box) for box in ((32, 24), (63, 48), (64, 47), (64, 48), (128, 96), (255, 400), (256, 192),
                                             (4000, 4000), (8, 8))] == [1, 1, 1, 2, 4, 4, 8, 8, 1]


def test_place_in_the_picture_survives_reduction(tmp_path):
    """A ramp tells the box: at every reduction the crop's ends lie where the plain transforms put them."""
    row = np.linspace(0, 255, 512).astype(np.uint8)
    path = save(tmp_path, 'ramp.jpg', Image.fromarray(np.stack([np.tile(row, (512, 1))] * 3, -1)), quality=100)
    for scale in (16, 40, 100, 200):
        plain, fast = both(path, 0, (scale, scale), crop_ratio_range=(0.5, 0.7))
        assert np.abs(plain - fast).max() <= 2
        assert np.abs((plain - fast).mean()) < 0.3  # an offset of one pixel of 512 is half a level


def test_broken_images_are_named(tmp_path):
    (tmp_path / 'text.jpg').write_text('no image')
    (tmp_path / 'empty.png').write_bytes(b'')
    for name in ('text.jpg', 'empty.png'):
        with pytest.raises(UserInputError, match=name):
            LoadAndCrop(8)(dict(img_path=str(tmp_path / name)))


def test_load_and_crop_in_the_base_config(tmp_path):
    cfg = read_config(CONFIGS / 'imagenet_device_224px.py')
    path = save(tmp_path, 'a.jpg', smooth(500, 375))
    pipeline = Compose([TRANSFORMS.build(step) for step in cfg.train_dataloader.dataset.pipeline])
    assert pipeline(dict(img_path=path))['inputs'].shape == (3, 224, 224)


@pytest.fixture
def packed(image_folder, tmp_path):
    """The path of image_folder, packed."""
    pack_images(image_folder, tmp_path / 'images.safetensors')
    return str(tmp_path / 'images.safetensors')


def test_round_trip_png(packed, image_folder):
    """Image, label and place in the list are those of the plain data set; the file is a safetensors file."""
    plain = CustomDataset(data_root=str(image_folder))
    dataset = PackedImages(packed)
    assert len(dataset) == len(plain) == 32 and dataset.metainfo['classes'] == plain.metainfo['classes'] == CLASSES
    for index in range(len(plain)):
        expected, sample = plain.get_data_info(index), dataset[index]
        with Image.open(expected['img_path']) as image:
            assert np.array_equal(sample['img'][..., ::-1], np.asarray(image))
        assert sample['gt_label'] == expected['gt_label'] and sample['sample_idx'] == index
    with safe_open(packed, 'np') as file:
        assert np.array_equal(file.get_tensor('images')[7], dataset[7]['img'])
        assert file.get_tensor('labels').tolist() == plain.get_gt_labels().tolist()
        assert tuple(json.loads(file.metadata()['classes'])) == CLASSES


def test_round_trip_jpeg(tmp_path):
    """Colour and grey, odd sizes: what LoadImageFromFile makes of them."""
    for index in range(3):
        (tmp_path / 'in' / f'class_{index}').mkdir(parents=True)
        image = Image.fromarray(images(13, 11, seed=index)).convert('L' if index == 1 else 'RGB')
        path = save(tmp_path / 'in' / f'class_{index}', 'a.JPEG', image, quality=70)
        assert LoadImageFromFile()(dict(img_path=path))['img'].shape == (13, 11, 3)
    pack_images(tmp_path / 'in', tmp_path / 'out.safetensors')
    dataset = PackedImages(str(tmp_path / 'out.safetensors'))
    for index in range(3):
        path = str(tmp_path / 'in' / f'class_{index}' / 'a.JPEG')
        assert np.array_equal(dataset[index]['img'], LoadImageFromFile()(dict(img_path=path))['img'])


def test_official_layout_keeps_its_order_and_labels(tmp_path):
    """Validation images lie in one folder and are named by a list; classes are the folders of `train`."""
    root = tmp_path / 'tiny-imagenet-200'
    for index, wnid in enumerate(('n01', 'n02', 'n03')):
        (root / 'train' / wnid / 'images').mkdir(parents=True)
        save(root / 'train' / wnid / 'images', 'a.JPEG', Image.new('RGB', (8, 8), (80 * index, 0, 0)))
    (root / 'val' / 'images').mkdir(parents=True)
    for index, label in enumerate((2, 1)):
        save(root / 'val' / 'images', f'val_{index}.JPEG', Image.new('RGB', (8, 8), (80 * label, 0, 0)))
    (root / 'val' / 'val_annotations.txt').write_text('val_0.JPEG\tn03\t0\nval_1.JPEG\tn02\t0\n')
    for split in ('train', 'val'):
        pack_images(root / split, tmp_path / split)
        dataset = PackedImages(str(tmp_path / split))
        plain = TinyImageNet(root, split=split)
        assert dataset.metainfo['classes'] == plain.metainfo['classes'] == ('n01', 'n02', 'n03')
        assert dataset.get_gt_labels().tolist() == plain.get_gt_labels().tolist()
        assert [round(sample['img'][0, 0, 2] / 80) for sample in dataset] == dataset.get_gt_labels().tolist()


def test_size_keeps_the_middle_square(tmp_path):
    """A wide picture, grey in the middle and white outside."""
    pixels = np.full((20, 60, 3), 255, dtype=np.uint8)
    pixels[:, 20:40] = 100
    (tmp_path / 'in').mkdir()
    save(tmp_path / 'in', 'wide.png', Image.fromarray(pixels))
    save(tmp_path / 'in', 'tall.png', Image.fromarray(pixels.transpose(1, 0, 2)))
    assert pack_images(tmp_path / 'in', tmp_path / 'out', size=10)['shape'] == (2, 10, 10, 3)
    dataset = PackedImages(str(tmp_path / 'out'), with_label=False)
    for sample in dataset:
        assert (sample['img'][2:-2, 2:-2] == 100).all()


def test_listing_hash_knows_the_source(image_folder, tmp_path):
    copied = shutil.copytree(image_folder, tmp_path / 'copied')
    assert list_source(copied).sha256 == list_source(image_folder).sha256
    (copied / 'blobs' / '0.png').unlink()
    assert list_source(copied).sha256 != list_source(image_folder).sha256


def test_without_labels_and_in_parts(packed):
    dataset = PackedImages(packed, with_label=False, indices=[5, 9])
    assert len(dataset) == 2 and 'gt_label' not in dataset[0]
    assert np.array_equal(dataset[1]['img'], PackedImages(packed)[9]['img'])
    assert dataset[1]['img_path'].endswith('#9')


def test_many_workers_read_the_same_file(packed):
    """After the parent has read, too."""
    dataset = DATASETS.build(dict(type='PackedImages', file=packed, pipeline=[dict(type='PackInputs')]))
    expected = torch.stack([sample['inputs'] for sample in dataset])
    loader = DataLoader(dataset, batch_size=4, num_workers=3, collate_fn=default_collate)
    batches = list(loader)
    assert torch.equal(torch.cat([batch['inputs'] for batch in batches]), expected)
    assert [int(sample.gt_label) for batch in batches for sample in batch['data_samples']] == [0] * 16 + [1] * 16


def test_copies_do_not_carry_the_pixels(packed):
    """Spawned workers get a pickle, and open the file anew."""
    dataset = PackedImages(packed)
    image = dataset[3]['img']
    image[:] = 0  # a copy: the file and the next reader keep theirs
    assert len(pickle.dumps(dataset.packed)) < 1000
    for copied in (copy.deepcopy(dataset), dataset.get_subset([3, 4]), pickle.loads(pickle.dumps(dataset))):
        assert copied.packed._images is None and copied[0]['img'].any()


def test_serves_the_knn_probe(packed):
    """Images of a class vote for themselves: a data set against itself, one neighbour."""
    data = dict(type='PackedImages', file=packed, pipeline=[dict(type='PackInputs')])
    probe = KNNProbe(data, data, k=1, num_workers=0)
    assert probe.num_classes == 2
    assert probe.score(lambda batch: batch.flatten(1).float(), BaseDataPreprocessor()) == 100


def test_base_config_reads_the_file(packed):
    cfg = read_config(CONFIGS / 'tiny-imagenet_packed_64px.py').train_dataloader.dataset
    assert set(cfg) == {'type', 'file', 'with_label', 'pipeline'}
    cfg.file = packed
    assert DATASETS.build(cfg)[0]['inputs'].shape == (3, 32, 32)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-1])


def grow(path):
    path.write_bytes(path.read_bytes() + b'0')


def end_in_header(path):
    path.write_bytes(path.read_bytes()[:100])


def other_safetensors(path):
    save_file(dict(images=np.zeros((2, 4, 4, 3), np.uint8)), path)


@pytest.mark.parametrize('damage, message', [
    (cut_short, 'header says'), (grow, 'header says'), (end_in_header, 'no file of packed images'),
    (other_safetensors, 'no file of packed images'), (lambda path: path.write_bytes(b''), 'no file of packed images'),
    (lambda path: path.write_bytes(b'\xff' * 5000), 'no file of packed images'),
    (lambda path: path.unlink(), 'pack_images.py')])
def test_damaged_files_are_refused(damage, message, packed, tmp_path):
    damage(tmp_path / 'images.safetensors')
    with pytest.raises(UserInputError, match=message) as caught:
        PackedImages(packed)
    assert packed in str(caught.value) and '\n' not in str(caught.value)


def test_labels_that_are_not_there(tmp_path):
    (tmp_path / 'in').mkdir()
    save(tmp_path / 'in', 'a.png', smooth(8, 8))
    pack_images(tmp_path / 'in', tmp_path / 'out')
    assert 'classes' not in PackedImages(str(tmp_path / 'out'), with_label=False).metainfo
    with pytest.raises(Exception) as caught:
        DATASETS.build(dict(type='PackedImages', file=str(tmp_path / 'out'), pipeline=[]))
    assert 'with_label=False' in str(root_cause(caught.value))
