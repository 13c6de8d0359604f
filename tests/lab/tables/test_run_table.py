"""lab/tables/run_table.py: rows are trained, killed, gone on with and reported; wrong input starts nothing."""
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from mmengine.config import Config

from mimhd_mm.compat import load_checkpoint_safely
from mimhd_mm.engine.loading import build_untrained
from mimhd_mm.registry import MODELS

from ...test_tools.commands import ROOT, error_of, load_tool

TOOL = 'lab.tables.run_table'
MINI = ROOT / 'configs' / 'pretrain' / 'mini'
STUDENT = MINI / 'mimhd_vit-micro-p8_1xb64-coslr-5e_tiny-imagenet-64px.py'
CONFIG = """
# Needs the teacher: configs/pretrain/mini/some_teacher.py first.
_base_ = {base!r}
train_dataloader = dict(batch_size=8, num_workers=0, persistent_workers=False)
train_cfg = dict(max_epochs={epochs})
param_scheduler = [dict(type='CosineAnnealingLR', T_max={epochs}, by_epoch=True, begin=0, end={epochs})]
"""


@pytest.fixture(scope='module')
def labelled(image_folder, tmp_path_factory):
    root = tmp_path_factory.mktemp('labelled')
    for split in ('train', 'val'):
        shutil.copytree(image_folder, root / split)
    return root


@pytest.fixture(scope='module')
def mini_teacher(tmp_path_factory):
    """A file with the shape of the mini MAE."""
    torch.manual_seed(3)
    model = MODELS.build(Config.fromfile(MINI / 'mae_vit-mini-p8_1xb64-coslr-20e_tiny-imagenet-64px.py').model)
    path = tmp_path_factory.mktemp('teacher') / 'mini_mae.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


@pytest.fixture(scope='module')
def tables(tmp_path_factory):
    """A list of tables; the rows take seconds on 32 images."""
    folder = tmp_path_factory.mktemp('tables')
    long, short = folder / 'long_vit.py', folder / 'short_vit.py'
    long.write_text(CONFIG.format(base=str(STUDENT), epochs=5))
    short.write_text(CONFIG.format(base=str(MINI / 'tinymim_vit-micro-p8_1xb64-coslr-5e_tiny-imagenet-64px.py'),
                                   epochs=1))
    cfg = Config.fromfile(long).model.backbone
    torch.manual_seed(4)
    student = MODELS.build(dict(cfg)).state_dict()
    torch.save(dict(state_dict={f'backbone.{key}': value for key, value in student.items()}), folder / 'moco.pth')
    content = dict(
        some=dict(title='Some table', rows=[
            dict(name='no reconstruction', mini=dict(config=str(long), options={'model.rec_weight': 0}),
                 full=dict(config=str(STUDENT)), paper=dict(top1=84.8)),
            dict(name='TinyMIM', mini=dict(config=str(short)), paper=dict(mIoU=39.6)),
            dict(name='large only', full=dict(config=str(STUDENT))),
            dict(name='imported', mini=dict(checkpoint=str(folder / 'dino.pth'))),
            dict(name='TinyMIM again', mini=dict(config=str(short)))]),
        starts=dict(title='Starts', rows=[dict(name='untrained', mini=dict(config=str(short), untrained=True))]),
        broken=dict(title='Broken', rows=[
            dict(name='no such part', mini=dict(config=str(long), options={'model.hed.loss': 1})),
            dict(name='no such argument', mini=dict(config=str(long), options={'model.head.paris': ['qk']})),
            dict(name='no such config', mini=dict(config='configs/nothing.py')),
            dict(name='three heads', mini=dict(config=str(long), options={
                'model.head.matcher.type': 'SelectHeadMatcher', 'model.head.matcher.heads': [0, 1, 2]})),
            dict(name='rate below zero', mini=dict(config=str(short), options={'optim_wrapper.optimizer.lr': -1.})),
            dict(name='imported', mini=dict(checkpoint=str(folder / 'moco.pth')))]))
    path = folder / 'tables.yml'
    path.write_text(json.dumps(content))  # JSON is YAML
    return path


@pytest.fixture
def arguments(tables, labelled, mini_teacher, tmp_path):
    """All but the table: the miniatures, with data, teacher and work dir."""
    return ['--mini', '--tables', str(tables), '--pretrain-root', str(labelled), '--teacher', str(mini_teacher),
            '--work-dir', str(tmp_path / 'work')]


def run(*arguments) -> int:
    return load_tool(TOOL).main([str(argument) for argument in arguments])


def report(work, name='some-mini') -> dict:
    return json.loads((work / f'{name}.json').read_text())


def kill_after_first_checkpoint(arguments, work) -> None:
    """Start the tool and end its processes with SIGKILL as soon as a checkpoint is complete."""
    process = subprocess.Popen(
        [sys.executable, '-W', 'ignore', '-m', TOOL, *arguments], start_new_session=True,
        env=dict(os.environ, PYTHONPATH=str(ROOT)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.time() + 240
        while not list(work.glob('runs/*/pretrain/last_checkpoint')) and time.time() < end and process.poll() is None:
            time.sleep(.02)
        assert process.poll() is None, 'it ended before it could be killed'
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
@pytest.mark.skipif(os.name == 'nt', reason='signals')
def test_rows_killed_resumed_and_complete(arguments, tmp_path, capfd):
    """Cut short in its first row, a table is gone on with; a third call computes nothing and shows the same."""
    work = tmp_path / 'work'
    kill_after_first_checkpoint(['some', *arguments], work)
    folder, = work.glob('runs/*')
    assert not list(work.rglob('pretrain.json')) and not list(work.rglob('score.json'))
    assert {row['status'] for row in report(work)['rows']} == {'not run', 'no miniature'}
    assert not (folder / 'pretrain' / 'epoch_5.pth').exists()

    assert run('some', *arguments) == 0
    printed = capfd.readouterr().out
    assert printed.count('$ python') == 2 and printed.count('--resume') == 1  # the last row is the second one's run
    rows = report(work)['rows']
    assert [row['status'] for row in rows] == ['run', 'run', 'no miniature', 'not run', 'run']
    assert rows[0]['runs'][0]['resumed'] and not rows[1]['runs'][0]['resumed']
    assert rows[1]['runs'] == rows[4]['runs']
    for row in (rows[0], rows[1]):
        found, = row['runs']
        summary = row['metrics']['knn']
        assert summary == dict(mean=found['scores']['knn'], std=None, n=1) and 0 <= summary['mean'] <= 100
        assert row['metrics']['segmentation'] is None and row['paper'] == {}
        meta = torch.load(found['checkpoint'], weights_only=False)['meta']
        assert meta['epoch'] == (5 if row is rows[0] else 1) and meta['seed'] == 0
    saved = Config.fromfile(folder / 'config.py')
    assert not saved.resume and saved.load_from is None  # mmengine's dump has not taken its place
    assert saved.model.rec_weight == 0 and saved.default_hooks.checkpoint.interval == 1
    assert saved.default_hooks.knn_probe.test.data_root == saved.train_dataloader.dataset.data_root
    assert {'head_entropy_qk', 'head_coverage_vv'} <= set(rows[0]['logged'])

    text = (work / 'some-mini.md').read_text()
    assert text in printed and 'PAPER' not in text and '84.8' not in text and '39.6' not in text
    score = rows[0]['metrics']['knn']['mean']
    line, = [line for line in text.splitlines() if line.startswith('| no reconstruction |')]
    assert f'| model.rec_weight=0 | {score:.2f} (n=1) |' + ' not run |' * 4 in line
    assert '| large only | | | no miniature' in text and '| imported | dino | | not run' in text
    assert 'vit_to_mmpretrain.py' in text
    for key in ('command', 'seeds', 'settings', 'device', 'versions', 'commit', 'hours'):
        assert f'\n- {key}' in text
    with open(work / 'some-mini.csv') as file:
        lines = list(csv.DictReader(file))
    assert [line['status'] for line in lines] == [row['status'] for row in rows]
    assert float(lines[0]['knn_mean']) == score and lines[3]['knn_mean'] == ''
    assert float(lines[0]['head_entropy_qk_mean']) == rows[0]['logged']['head_entropy_qk']['mean']

    assert run('some', *arguments) == 0
    again = capfd.readouterr().out
    assert '$ ' not in again and again.count('there already') == 6
    assert report(work)['rows'] == rows


@pytest.mark.slow
def test_a_row_without_training(arguments, tmp_path, capfd):
    """Its student is that of a training with the same seed before the first step, head count included."""
    assert run('starts', *arguments, '--seeds', 2) == 0
    assert '$ python' not in capfd.readouterr().out
    row, = report(tmp_path / 'work', 'starts-mini')['rows']
    assert row['status'] == 'run' and row['metrics']['knn']['n'] == 2
    states = [load_checkpoint_safely(found['checkpoint'])['state_dict'] for found in row['runs']]
    cfg = Config.fromfile(next((tmp_path / 'work').glob('runs/*-s1-*/config.py')))
    expected = build_untrained(cfg, 1).backbone.state_dict()
    assert all(torch.equal(value, states[1][f'backbone.{key}']) for key, value in expected.items())
    assert not torch.equal(states[0]['backbone.cls_token'], states[1]['backbone.cls_token'])
    assert not any(key.startswith('target_generator') for key in states[1])


@pytest.mark.slow
def test_a_row_that_fails(arguments, tmp_path, capfd):
    """It is reported, the next one runs, the status is 1."""
    assert run('broken', *arguments, '--rows', 5, 6, '--shorten', .5) == 1
    rows = report(tmp_path / 'work', 'broken-mini')['rows']
    assert [row['status'] for row in rows] == ['not run'] * 4 + ['failed', 'run']
    score = rows[5]['metrics']['knn']['mean']
    assert score > 0 and rows[5]['runs'][0]['checkpoint'].endswith('moco.pth')
    text = (tmp_path / 'work' / 'broken-mini.md').read_text()
    assert f'| imported | moco | | {score:.2f} (n=1) * |' in text
    assert 'pre-training shortened to 0.5 of its length' in text
    line, = [line for line in text.splitlines() if line.startswith('| rate below zero |')]
    assert line.endswith('| failed |' + ' not run |' * 4)
    assert '- row 5, seed 0, failed: tools/train.py ended with status 1' in text
    assert 'error: row 5, seed 0: ' in capfd.readouterr().err


@pytest.mark.parametrize('row, named', [
    (1, ["'model.hed.loss'", "no 'model.hed'"]), (2, ['paris', 'cannot be built']), (3, ['nothing.py']),
    (4, ['SelectHeadMatcher needs 6 teacher heads', '[0, 1, 2]'])])
def test_rows_that_cannot_be_run(arguments, tmp_path, row, named):
    """Before any training of any row."""
    message = error_of(TOOL, 'broken', *arguments, '--rows', 6, row)
    assert all(part in message for part in named), message
    assert not (tmp_path / 'work' / 'runs').exists()


def test_wrong_input(arguments, tables, labelled, teacher_file, tmp_path):
    def refused(*changes, table='some'):
        message = error_of(TOOL, table, *arguments, *changes)
        assert not (tmp_path / 'work' / 'runs').exists()
        return message

    assert "one of some, starts, broken, not 'table9'" in refused(table='table9')
    assert 'none was given' in error_of(TOOL, *arguments)
    assert 'rows 1 to 5, not 9' in refused('--rows', 1, 9)
    assert "'nothing.pth'" in refused('--teacher', 'nothing.pth')
    assert 'embed_dims=48' in refused('--teacher', teacher_file)
    for option in (('--seeds', 0), ('--gpus', 0), ('--shorten', 2)):
        assert option[0] in refused(*option)
    message = refused('--pretrain-root', tmp_path / 'nowhere')
    assert str(tmp_path / 'nowhere') in message and message.endswith('--pretrain-root.')
    assert '--classification-root' in refused('--classification-root', tmp_path)
    assert '--segmentation-root' in refused('--tasks', 'segmentation', '--segmentation-root', tmp_path)
    assert 'SelectHeadMatcher' in refused('--heads', tables)
    assert "'nothing.yml'" in refused('--tables', 'nothing.yml')
    (tmp_path / 'odd.yml').write_text('some: {title: T, rows: [{name: N, mini: {confg: x}}]}')
    assert "'confg'" in refused('--tables', tmp_path / 'odd.yml')
    (tmp_path / 'odd.yml').write_text('some: {title: T')
    assert 'odd.yml' in refused('--tables', tmp_path / 'odd.yml')


def test_missing_teacher(arguments, tmp_path, monkeypatch):
    """Without --teacher the config's file is needed, and what trains it is named."""
    monkeypatch.chdir(tmp_path)
    at = arguments.index('--teacher')
    message = error_of(TOOL, 'some', *arguments[:at], *arguments[at + 2:])
    assert 'epoch_20.pth' in message and 'configs/pretrain/mini/some_teacher.py' in message and '--teacher' in message


def test_list(tables, capsys):
    assert run('--list') == 0
    listed = capsys.readouterr().out
    for name in ('table1:', 'table1-tiny-imagenet:', 'table3:', 'table4:', 'figure2:', 'figure6:'):
        assert f'\n{name}' in '\n' + listed
    assert run('--list', '--tables', tables) == 0
    assert 'model.rec_weight=0' in capsys.readouterr().out
