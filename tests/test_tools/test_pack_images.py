"""The tools around the data pipeline: packing a folder, and timing a dataloader."""
import json

import numpy as np
import pytest
from PIL import Image

from mimhd_mm.datasets import PackedImages

from .commands import call, error_of

PACK, TIME = 'dataset_converters/pack_images.py', 'lab.speed.dataloader'


def test_packs_and_says_how_to_use_it(image_folder, tmp_path, capsys):
    target = tmp_path / 'new' / 'images.safetensors'
    call(PACK, image_folder, target)
    printed = capsys.readouterr().out
    assert '32 images of 32 x 32 pixels, 2 classes' in printed and f"file='{target}'" in printed
    assert len(PackedImages(str(target))) == 32
    assert [path.name for path in target.parent.iterdir()] == [target.name]  # no temporary file


def test_size(image_folder, tmp_path, capsys):
    call(PACK, image_folder, tmp_path / 'out', '--size', 8)
    assert '8 x 8 pixels' in capsys.readouterr().out
    assert PackedImages(str(tmp_path / 'out'))[0]['img'].shape == (8, 8, 3)


@pytest.fixture
def folder(tmp_path):
    """Two classes of three images of one size."""
    for name in ('a', 'b'):
        (tmp_path / 'in' / name).mkdir(parents=True)
        for index in range(3):
            noise = np.random.default_rng(index).integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / 'in' / name / f'{index}.{"jpg" if index else "png"}')
    return tmp_path / 'in'


def shorten(path):
    content = path.read_bytes()
    path.write_bytes(content[:len(content) // 2])


@pytest.mark.parametrize('damage, words', [
    (lambda root: shorten(root / 'b' / '1.jpg'), ('b/1.jpg', 'decoded')),
    (lambda root: shorten(root / 'b' / '0.png'), ('b/0.png', 'decoded')),
    (lambda root: (root / 'a' / '2.jpg').write_text('no image'), ('a/2.jpg', 'decoded')),
    (lambda root: Image.new('RGB', (40, 30)).save(root / 'b' / '2.jpg'), ('b/2.jpg', '40 x 30', '40 x 40', '--size')),
    (lambda root: Image.new('RGB', (40, 40)).save(root / 'loose.png'), ('loose.png', 'class folders'))])
def test_refuses_wrong_images_and_leaves_nothing(damage, words, folder, tmp_path):
    damage(folder)
    message = error_of(PACK, folder, tmp_path / 'out' / 'images')
    assert all(word in message for word in words), message
    assert not list((tmp_path / 'out').iterdir() if (tmp_path / 'out').exists() else ())


def test_refuses_what_is_not_there_and_what_is(folder, tmp_path):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'kept').write_text('mine')
    assert 'No folder' in error_of(PACK, tmp_path / 'nowhere', tmp_path / 'out')
    assert 'No image' in error_of(PACK, tmp_path / 'empty', tmp_path / 'out')
    assert 'not overwritten' in error_of(PACK, folder, tmp_path / 'kept')
    assert 'not overwritten' in error_of(PACK, folder, tmp_path / 'empty')
    assert '--size 0' in error_of(PACK, folder, tmp_path / 'out', '--size', 0)
    assert (tmp_path / 'kept').read_text() == 'mine' and not (tmp_path / 'out').exists()


def config(folder, **loader) -> str:
    """A config of nothing but training data; its path."""
    settings = dict(batch_size=2, num_workers=4, sampler=dict(type='DefaultSampler', shuffle=True), drop_last=True,
                    prefetch_factor=2, persistent_workers=True,
                    dataset=dict(type='CustomDataset', data_root=str(folder), pipeline=[
                        dict(type='LoadAndCrop', scale=16), dict(type='PackInputs')]), **loader)
    path = folder.parent / 'config.py'
    path.write_text(f"custom_imports = dict(imports=['mimhd_mm'])\nmodel = dict()\n"
                    f"data_preprocessor = dict(type='DeviceAugmentation', flip_prob=0.5)\n"
                    f'train_dataloader = {settings!r}\n')
    return str(path)


def test_times_a_dataloader(folder, tmp_path, capsys):
    """Without workers and with one; a step of 100 ms bounds the speed to 20 images a second."""
    call(TIME, config(folder), '--workers', 0, 1, '--batches', 3, '--step-ms', 100, '--out', tmp_path / 'speed.json')
    table = capsys.readouterr().out
    report = json.loads((tmp_path / 'speed.json').read_text())
    assert [row['workers'] for row in report['rows']] == [0, 1] and '| 1 |' in table
    for row in report['rows']:
        assert 0 < row['images_per_second'] <= 20 and 0 <= row['waited'] < 1 and row['batches'] == 3
        assert row['preprocess_ms'] > 0
    assert report['about']['step_ms'] == 100 and report['about']['versions'] and '- device: ' in table


def test_timing_refuses_wrong_input(folder, tmp_path):
    path = config(folder)
    assert '--batches' in error_of(TIME, path, '--batches', 0)
    assert '--workers' in error_of(TIME, path, '--workers', -1)
    assert 'no batch of 7' in error_of(TIME, path, '--workers', 0, '--cfg-options', 'train_dataloader.batch_size=7')
    assert 'no folder' in error_of(TIME, path, '--cfg-options', 'train_dataloader.dataset.data_root=nowhere')
    assert 'No config file' in error_of(TIME, tmp_path / 'missing.py')
    (tmp_path / 'empty.py').write_text('model = dict()\ndata_preprocessor = dict(type="SelfSupDataPreprocessor")\n')
    assert 'no train_dataloader' in error_of(TIME, tmp_path / 'empty.py')
