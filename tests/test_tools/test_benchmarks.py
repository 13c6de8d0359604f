"""``tools/benchmarks``: tables, files and refusals. What the figures are made of is tested in ``test_benchmark.py``."""
import json
import shutil

import pytest
import torch
from PIL import Image

from .commands import ROOT, call, error_of

STEP, LOSS, PLAN = (f'benchmarks/{name}.py' for name in ('step_time', 'relation_loss', 'plan'))
MICRO = ('--size', 'micro', '--batch-size', 2, '--repeats', 2, '--warmup', 0, '--device', 'cpu')
CONFIG = ROOT / 'configs/pretrain/mini/mimhd_vit-micro-p8_1xb64-coslr-5e_tiny-imagenet-64px.py'


def test_step_time_prints_a_table_and_writes_json(tmp_path, capsys):
    out = tmp_path / 'step.json'
    call(STEP, *MICRO, '--img-size', 32, '--variants', 'tinymim', 'mimhd', '--out', out)
    printed = capsys.readouterr().out
    table = [line for line in printed.splitlines() if line.startswith('|')]
    assert len(table) == 4 and table[2].split('|')[1].strip() == 'tinymim'
    assert table[0].split('|')[5].strip() == 'to the first' and table[2].split('|')[5].strip() == '1'
    content = json.loads(out.read_text())
    assert [one['variant'] for one in content['results']] == ['tinymim', 'mimhd']
    assert set(content['about']) >= {'command', 'device', 'versions', 'commit', 'size', 'dtype', 'batch_size'}
    assert content['about']['command'].startswith('python tools/benchmarks/step_time.py --size micro')
    assert content['about']['device'] in printed
    assert error_of(STEP, *MICRO, '--out', out) == (
        f'error: {str(out)!r} is there already; give another name or remove it.')


def test_step_time_of_students(tmp_path, capsys):
    call(STEP, '--students', 'micro', *MICRO[2:], '--img-size', 32, '--out', tmp_path / 'students.json')
    printed = capsys.readouterr().out
    rows = [line.split('|')[1].strip() for line in printed.splitlines() if line.startswith('|')][2:]
    assert rows == ['apart', 'micro', 'nano', 'together']
    assert '- together: a step of all students with one pass of one teacher' in printed
    assert json.loads((tmp_path / 'students.json').read_text())['about']['size'] == 'micro'


def test_step_time_waits_for_images(image_folder, capsys):
    call(STEP, *MICRO, '--variants', 'tinymim', '--images', image_folder, '--workers', 1)
    header, _, row = (line.split('|') for line in capsys.readouterr().out.splitlines() if line.startswith('|'))
    assert float(row[[name.strip() for name in header].index('data')]) > 0


def test_sweep_draws_a_plot(tmp_path, capsys):
    plot, out = tmp_path / 'growth.png', tmp_path / 'growth.json'
    call(STEP, *MICRO, '--img-size', 32, '--variants', 'tinymim', '--sweep', 'batch', '--values', 1, 2, '--plot', plot,
         '--out', out)
    assert Image.open(plot).size == (900, 600)
    assert [(one['swept'], one['value']) for one in json.loads(out.read_text())['results']] == [
        ('batch', 1), ('batch', 2)]
    assert '| tinymim | 2 |' in capsys.readouterr().out


def test_relation_loss_prints_a_table_and_writes_json(tmp_path, capsys):
    out = tmp_path / 'loss.json'
    call(LOSS, '--tokens', 16, 2000, '--heads', '3x4', '--batch-size', 2, '--repeats', 2, '--device', 'cpu', '--max-gb',
         0.1, '--out', out)
    printed = capsys.readouterr().out
    assert '| 2 | 3 | 4 | 16 |' in printed and 'N = 2000: left out' in printed
    content = json.loads(out.read_text())
    assert [one['tokens'] for one in content['results']] == [16] and content['about']['commit']


def test_plan_with_and_without_images(tmp_path, image_folder, capsys):
    small = ('--iterations', 2, '--batch-size', 2, '--device', 'cpu', '--gpus', 2, '--cfg-options')
    call(PLAN, CONFIG, '--out', tmp_path / 'noise.json', *small, 'train_dataloader.dataset.data_root=nowhere')
    assert "images were noise, so the wait for data is not in these figures" in capsys.readouterr().out
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


@pytest.mark.parametrize('arguments, message', [
    (('--size', 'huge'), "Unknown size 'huge'; choose from base, small, tiny, micro."),
    (('--students', 'many'), "Unknown group of students 'many'; choose from tiny-small-base, micro."),
    (('--students', 'micro', '--size', 'micro'), '--students and --size exclude each other'),
    (('--variants', 'ours'), "Unknown variant 'ours'; choose from mimhd, "),
    (('--dtype', 'float16'), "Unknown dtype 'float16'; choose from float32, bfloat16."),
    (('--device', 'tpu'), "Unknown device 'tpu'; choose from cpu, cuda."),
    (('--sweep', 'depth'), "Unknown sweep 'depth'; choose from tokens, heads, batch."),
    (('--batch-size', 0), '--batch-size is above 0, not 0.'),
    (('--compile', '--warmup', 0), '--compile compiles in the first round'),
    (('--plot', 'x.png'), '--values and --plot belong to --sweep'),
    (('--out', 'x.txt'), "'x.txt' was given for a .json file"),
    (('--images', 'nowhere'), "--images: no folder 'nowhere'"),
    (('--size', 'micro', '--sweep', 'tokens', '--values', 50), 'a square number'),
    (('--size', 'micro', '--sweep', 'heads', '--values', 5), '5 heads do not divide a width of 96'),
])
def test_step_time_refuses(arguments, message):
    assert message in error_of(STEP, *arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
@pytest.mark.parametrize('arguments', [(STEP, ), (LOSS, ), (PLAN, CONFIG)], ids=lambda arguments: arguments[0])
def test_no_gpu_is_said_at_once(arguments):
    assert '--device cuda needs a GPU, and none is visible' in error_of(*arguments, '--device', 'cuda')


def test_relation_loss_and_plan_refuse(tmp_path):
    assert 'given as M2xM1, e.g. 12x16' in error_of(LOSS, '--heads', '12')
    assert 'No size fits: 3 x 16 heads' in error_of(LOSS, '--heads', '3x16', '--max-gb', 1e-9)
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
