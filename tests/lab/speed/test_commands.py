"""The commands of ``lab.speed``: tables, files and refusals. ``test_speed.py`` tests what the figures are made of."""
import json

import pytest
import torch
from PIL import Image

from ...test_tools.commands import call, error_of

STEP, LOSS = (f'lab.speed.{name}' for name in ('step_time', 'relation_loss'))
MICRO = ('--size', 'micro', '--batch-size', 2, '--repeats', 2, '--warmup', 0, '--device', 'cpu')


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
    assert content['about']['command'].startswith('python -m lab.speed.step_time --size micro')
    assert content['about']['device'] in printed
    assert error_of(STEP, *MICRO, '--out', out) == (
        f'error: {str(out)!r} is there already; give another name or remove it.')


@pytest.mark.slow
def test_step_time_of_students(tmp_path, capsys):
    call(STEP, '--students', 'micro', *MICRO[2:], '--img-size', 32, '--out', tmp_path / 'students.json')
    printed = capsys.readouterr().out
    rows = [line.split('|')[1].strip() for line in printed.splitlines() if line.startswith('|')][2:]
    assert rows == ['apart', 'micro', 'nano', 'together']
    assert '- together: a step of all students with one pass of one teacher' in printed
    assert json.loads((tmp_path / 'students.json').read_text())['about']['size'] == 'micro'


@pytest.mark.slow
def test_step_time_waits_for_images(image_folder, capsys):
    call(STEP, *MICRO, '--variants', 'tinymim', '--images', image_folder, '--workers', 1)
    header, _, row = (line.split('|') for line in capsys.readouterr().out.splitlines() if line.startswith('|'))
    assert float(row[[name.strip() for name in header].index('data')]) > 0


@pytest.mark.slow
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
@pytest.mark.parametrize('arguments', [(STEP, ), (LOSS, )], ids=lambda arguments: arguments[0])
def test_no_gpu_is_said_at_once(arguments):
    assert '--device cuda needs a GPU, and none is visible' in error_of(*arguments, '--device', 'cuda')


def test_relation_loss_refuses():
    assert 'given as M2xM1, e.g. 12x16' in error_of(LOSS, '--heads', '12')
    assert 'No size fits: 3 x 16 heads' in error_of(LOSS, '--heads', '3x16', '--max-gb', 1e-9)
