"""Tiny ImageNet in both layouts: the same images get the same labels, and what is wrong is said."""
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from mimhd_mm.datasets import TinyImageNet
from mimhd_mm.engine.loading import list_images
from mimhd_mm.engine.preflight import check_image_folder
from mimhd_mm.errors import UserInputError, root_cause
from mimhd_mm.registry import DATASETS

WNIDS = ('n01443537', 'n01629819', 'n02085620')  # in alphabetical order
TRAIN, VAL = 3, 2  # images a class


def save(path, wnid: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (64, 64), (60 * WNIDS.index(wnid), 0, 0)).save(path, 'JPEG')


@pytest.fixture
def official(tmp_path):
    """The archive's layout; validation images are listed in an order of their own."""
    root = tmp_path / 'tiny-imagenet-200'
    for wnid in WNIDS:
        for index in range(TRAIN):
            save(root / 'train' / wnid / 'images' / f'{wnid}_{index}.JPEG', wnid)
        (root / 'train' / wnid / f'{wnid}_boxes.txt').write_text('no image\n')
    lines = []
    for index, wnid in enumerate(sorted(WNIDS * VAL, key=lambda wnid: wnid[-1])):
        save(root / 'val' / 'images' / f'val_{index}.JPEG', wnid)
        lines.append(f'val_{index}.JPEG\t{wnid}\t0\t32\t44\t62\n')
    (root / 'val' / 'val_annotations.txt').write_text(''.join(lines))
    return root


@pytest.fixture
def class_folders(tmp_path):
    """One folder a class, in both splits."""
    root = tmp_path / 'tiny-imagenet'
    for split, number in (('train', TRAIN), ('val', VAL)):
        for wnid in WNIDS:
            for index in range(number):
                save(root / split / wnid / f'{index}.JPEG', wnid)
    return root


@pytest.mark.parametrize('layout', ['official', 'class_folders'])
@pytest.mark.parametrize('split, number', [('train', TRAIN), ('val', VAL)])
def test_labels_agree_with_the_images(layout, split, number, request):
    """The colour of an image tells its class, whatever the layout and the split."""
    dataset = TinyImageNet(str(request.getfixturevalue(layout)), split=split)
    assert dataset.metainfo['classes'] == WNIDS
    assert len(dataset) == number * len(WNIDS)
    for index in range(len(dataset)):
        sample = dataset.get_data_info(index)
        red = Image.open(sample['img_path']).getpixel((0, 0))[0]
        assert round(red / 60) == sample['gt_label']


def test_class_that_is_missing_from_val_keeps_the_other_labels(class_folders):
    shutil.rmtree(class_folders / 'val' / WNIDS[0])
    labels = [sample['gt_label'] for sample in TinyImageNet(class_folders, split='val').load_data_list()]
    assert sorted(set(labels)) == [1, 2]


def test_without_labels(official):
    dataset = TinyImageNet(official, split='train', with_label=False)
    assert len(dataset) == TRAIN * len(WNIDS)
    assert 'gt_label' not in dataset.get_data_info(0)


@pytest.mark.parametrize('type_name', ['TinyImageNet', 'mimhd_mm.TinyImageNet', 'mmpretrain.TinyImageNet'])
def test_answers_to_its_names(official, type_name):
    dataset = DATASETS.build(dict(type=type_name, data_root=str(official), split='val', pipeline=[]))
    assert isinstance(dataset, TinyImageNet) and len(dataset) == VAL * len(WNIDS)


def test_unknown_split(official):
    with pytest.raises(UserInputError, match="split='test'"):
        TinyImageNet(official, split='test')


def test_missing_folder(tmp_path):
    with pytest.raises(UserInputError, match=str(tmp_path / 'train')):
        TinyImageNet(tmp_path, split='train')


def test_folder_without_images(tmp_path):
    (tmp_path / 'train' / WNIDS[0]).mkdir(parents=True)
    with pytest.raises(UserInputError, match='No image in .*train'):
        TinyImageNet(tmp_path, split='train')


def test_class_that_train_does_not_know(official):
    shutil.rmtree(official / 'train' / WNIDS[1])
    with pytest.raises(UserInputError, match=WNIDS[1]):
        TinyImageNet(official, split='val')
    assert len(TinyImageNet(official, split='val', with_label=False)) == VAL * len(WNIDS)


def test_the_sentence_survives_the_registry(tmp_path):
    with pytest.raises(Exception) as caught:
        DATASETS.build(dict(type='TinyImageNet', data_root=str(tmp_path), split='train'))
    assert str(root_cause(caught.value)).startswith('No folder')


def test_linked_class_folders_are_followed(image_folder, tmp_path):
    """A part of a large data set is often a folder of links to its class folders."""
    for split in ('train', 'val'):
        (tmp_path / split).mkdir()
        for folder in image_folder.iterdir():
            (tmp_path / split / folder.name).symlink_to(folder, target_is_directory=True)
    check_image_folder('train_dataloader.dataset', dict(data_root=str(tmp_path), split='train'))
    assert len(TinyImageNet(tmp_path, split='val', pipeline=[])) == len(list_images(tmp_path / 'val')) == 32


@pytest.mark.slow
def test_a_process_ends_at_once_though_its_workers_outlive_sigterm(tmp_path):
    """Python sends SIGTERM to the workers that are left when it ends; those of a scheduler's they live through."""
    script = tmp_path / 'script.py'
    script.write_text("""
import os, signal, time
import torch
from torch.utils.data import DataLoader
from mimhd_mm.datasets.seeded_samples import outlive_sigterm
loader = DataLoader(torch.arange(8), num_workers=2, persistent_workers=True)
outlive_sigterm(loader)
next(iter(loader))
workers = [worker.pid for worker in loader._iterator._workers]
for worker in workers:
    os.kill(worker, signal.SIGTERM)
time.sleep(2)
assert all(worker.is_alive() for worker in loader._iterator._workers)
print('alive', time.time(), flush=True)
""")
    done = subprocess.run([sys.executable, '-W', 'ignore', str(script)], capture_output=True, text=True, timeout=110,
                          env=dict(os.environ, PYTHONPATH=str(Path(__file__).parents[2])))
    end = time.time()
    assert done.returncode == 0, done.stderr
    assert end - float(done.stdout.split()[-1]) < 30
