"""``tools/plan.py``: output and refusals. ``test_measuring`` tests what the figures are made of."""
import json
import shutil

import pytest
import torch

from .commands import ROOT, call, error_of

PLAN = 'plan.py'
CONFIG = ROOT / 'configs/pretrain/mini/mimhd_vit-micro-p8_1xb64-coslr-5e_tiny-imagenet-64px.py'


def test_plan_with_and_without_images(tmp_path, image_folder, capsys):
    small = ('--iterations', 2, '--batch-size', 2, '--device', 'cpu', '--gpus', 2, '--cfg-options')
    call(PLAN, CONFIG, '--out', tmp_path / 'noise.json', *small, 'train_dataloader.dataset.data_root=nowhere')
    assert 'images were noise, so the wait for data is not in these figures' in capsys.readouterr().out
    noise = json.loads((tmp_path / 'noise.json').read_text())
    assert noise['run'] == dict(batch_size=64, global_batch=64, lr=1e-3, images=100000, epochs=5)
    assert noise['plan']['batch_size'] == 32 and noise['plan']['accumulate'] == 1 and noise['plan']['lr'] == 1e-3
    assert noise['start'].startswith(f'bash tools/dist_train.sh {CONFIG} 2 --cfg-options ')
    assert sum('cannot be told from it' in note for note in noise['notes']) == 1

    shutil.copytree(image_folder, tmp_path / 'images' / 'train')
    call(PLAN, CONFIG, '--out', tmp_path / 'real.json', *small,
         f'train_dataloader.dataset.data_root={tmp_path / "images"}', 'train_dataloader.num_workers=0')
    assert 'noise' not in capsys.readouterr().out
    real = json.loads((tmp_path / 'real.json').read_text())
    assert real['run']['images'] == 32 and real['seconds']['data']['median'] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
@pytest.mark.parametrize('arguments', [(PLAN, CONFIG)], ids=lambda arguments: arguments[0])
def test_no_gpu_is_said_at_once(arguments):
    assert '--device cuda needs a GPU, and none is visible' in error_of(*arguments, '--device', 'cuda')


def test_plan_refuses(tmp_path):
    config = tmp_path / 'empty.py'
    config.write_text('train_cfg = dict(max_epochs=1)\n')
    assert f'The config {str(config)!r} has no model' in error_of(PLAN, config)
    assert 'No config file' in error_of(PLAN, tmp_path / 'missing.py')
    assert '--epoch-images' in error_of(
        PLAN, CONFIG, '--cfg-options', 'train_dataloader.dataset.type=CustomDataset',
        'train_dataloader.dataset.data_root=nowhere')
    labels = ROOT / 'configs/finetune/mini/vit-micro-p8_1xb64-coslr-10e_tiny-imagenet-64px.py'
    assert 'a ImageClassifier cannot be measured' in error_of(
        PLAN, labels, '--cfg-options', 'train_dataloader.dataset.data_root=nowhere')
