"""Checkpoints are whole or not there; damaged ones are noticed; what was asked to stop says how to go on."""
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook

from mimhd_mm.engine.hooks import INTERRUPTED_STATUS, InterruptHook
from mimhd_mm.engine.launch import run_tool
from mimhd_mm.errors import UserInputError
from mimhd_mm.weights.checkpoint_files import (
    check_checkpoint,
    checkpoints_of,
    damage,
    hash_file,
    newest_checkpoint,
    noted_hashes,
    write_checkpoint,
)
from mimhd_mm.weights.writing import remove_leftovers, write_whole

from .runs import equal, settings, state_of, train
from .test_exact_resume import EPOCHS, ITERATIONS, mae

ROOT = Path(__file__).parents[2]


def saved(folder: Path, name: str, content=None, age: int = 0) -> Path:
    """A checkpoint as our hook writes it, so many seconds old."""
    path = folder / name
    torch.save(content or dict(meta=dict(iter=1), state_dict=dict(a=torch.arange(1000.))), folder / 'made')
    write_checkpoint(path, (folder / 'made').read_bytes())
    (folder / 'made').unlink()
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_written_whole_with_a_hash_that_sha256sum_reads(tmp_path):
    path = saved(tmp_path, 'epoch_1.pth')
    assert noted_hashes(path) == [sha256(path.read_bytes()).hexdigest()] and damage(path) is None
    assert hash_file(path).read_text() == f'{noted_hashes(path)[0]}  epoch_1.pth\n'
    assert sorted(file.name for file in tmp_path.iterdir()) == ['epoch_1.pth', 'epoch_1.pth.sha256']


def test_killed_at_every_point_of_a_replacement(tmp_path):
    """Old and new hash stand in the note while either content may be there."""
    old, contents = saved(tmp_path, 'old.pth'), []
    for point in range(4):
        path = tmp_path / f'point_{point}.pth'
        shutil.copy(old, path)
        hash_file(path).write_text(f'{noted_hashes(old)[0]}  {path.name}\n')
        process = os.fork()
        if process == 0:
            replace, calls = os.replace, []

            def killed(*names) -> None:
                """Before the system call that everything hangs on."""
                if len(calls) == point:
                    os.kill(os.getpid(), signal.SIGKILL)
                calls.append(replace(*names))

            os.replace = killed
            write_checkpoint(path, b'new')
            os._exit(0)
        assert os.WIFSIGNALED(os.waitpid(process, 0)[1]) == (point < 3)
        contents.append(path.read_bytes() == b'new')
        assert damage(path) is None
    assert contents == [False, False, True, True]  # before the note, the file, the note again; at the end
    assert len(remove_leftovers(tmp_path)) == 3 and not list(tmp_path.glob('*.tmp'))


@pytest.mark.parametrize('spoil', [truncate, flip_bit])
@pytest.mark.parametrize('hashed', [True, False])
def test_damaged_is_noticed_named_and_skipped(tmp_path, capsys, spoil, hashed):
    """With a hash, and without as mmengine's own hook leaves it."""
    old, new = saved(tmp_path, 'epoch_9.pth', age=9), saved(tmp_path, 'epoch_10.pth')
    (tmp_path / 'best_accuracy_top1_epoch_10.pth').write_bytes(old.read_bytes())
    (tmp_path / 'last_checkpoint').write_text(str(new))
    if not hashed:
        hash_file(old).unlink(), hash_file(new).unlink()
    assert newest_checkpoint(tmp_path) == new
    spoil(new)
    os.utime(new, (1e9, 1e9))
    assert newest_checkpoint(tmp_path) == old
    with pytest.raises(UserInputError, match=r'epoch_10\.pth.*epoch_9\.pth') as caught:
        check_checkpoint(new)
    assert '\n' not in str(caught.value)
    spoil(old)
    assert newest_checkpoint(tmp_path) is None
    assert set(checkpoints_of(tmp_path)) == {new, old}  # not the best one
    with pytest.raises(UserInputError, match='none beside it'):
        check_checkpoint(new)


def test_a_checkpoint_of_another_kind(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict={}), path)
    assert 'no state of a training' in damage(path)
    path.write_bytes(b'')
    assert damage(path) is not None
    with pytest.raises(UserInputError, match='no such file'):
        check_checkpoint(tmp_path / 'epoch_2.pth')


def test_names_of_ones_own(tmp_path):
    (tmp_path / 'last_checkpoint').write_text('/moved/model-3.pth')
    old, new = saved(tmp_path, 'model-2.pth', age=1), saved(tmp_path, 'model-3.pth')
    saved(tmp_path, 'student.pth')
    assert checkpoints_of(tmp_path) == [new, old]


def test_no_room(tmp_path):
    """A limit on the size of files is to the process what a full disk is; one sentence, nothing lost, nothing left."""
    path = saved(tmp_path, 'epoch_1.pth')
    before, limit = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10000, limit[1]))
        for name in ('epoch_1.pth', 'epoch_2.pth'):
            with pytest.raises(UserInputError, match=f'{name}.*File too large.*earlier .* are intact') as caught:
                write_checkpoint(tmp_path / name, bytes(20000))
            assert '\n' not in str(caught.value)
        with pytest.raises(SystemExit, match=r'^error: No room.*File too large.*free some space') as caught:
            run_tool(lambda argv: write_whole(tmp_path / 'log', bytes(20000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before and damage(path) is None
    assert sorted(file.name for file in tmp_path.iterdir()) == ['epoch_1.pth', 'epoch_1.pth.sha256']


@pytest.fixture(scope='module')
def config(image_folder):
    config = settings(mae(), image_folder, EPOCHS)
    config['default_hooks']['checkpoint'].update(interval=1)
    return config


@pytest.mark.slow
def test_damaged_newest_then_exactly_the_same_end(tmp_path, config):
    """Resumed from the one before; then a file that is named and damaged is refused."""
    whole, _, _ = train(config, tmp_path / 'whole')
    train(config, tmp_path / 'cut', stop_at=15)
    names = {path.name for path in (tmp_path / 'cut').glob('*.pth')}
    assert names == {'epoch_1.pth', 'epoch_2.pth', 'interrupted_iter_15.pth'}
    flip_bit(tmp_path / 'cut' / 'interrupted_iter_15.pth')
    (tmp_path / 'cut' / 'epoch_3.pth.123.tmp').write_bytes(b'half')
    resumed, seen, _ = train(config, tmp_path / 'cut', resume=True)
    assert min(seen.steps) == 12 and equal(state_of(whole), state_of(resumed))
    log = ''.join(path.read_text() for path in sorted((tmp_path / 'cut').glob('*/*.log')))
    assert re.search(r"Skipped the checkpoint '\S+interrupted_iter_15.pth': its sha256", log)
    names = {path.name for path in (tmp_path / 'cut').iterdir() if path.is_file() and path.suffix != '.py'}
    assert names == {'last_checkpoint', *(f'epoch_{number}.pth{end}' for number in (1, 2, 3)
                                          for end in ('', '.sha256'))}
    truncate(tmp_path / 'cut' / 'epoch_3.pth')
    with pytest.raises(UserInputError, match=r'epoch_3\.pth.*epoch_2\.pth'):
        train(config, tmp_path / 'cut', resume=True, load_from=str(tmp_path / 'cut' / 'epoch_3.pth'))


def test_nothing_whole_starts_anew(tmp_path, config):
    whole, expected, _ = train(config, tmp_path / 'run', stop_at=7)
    for path in (tmp_path / 'run').glob('*.pth'):
        truncate(path)
    _, seen, _ = train(config, tmp_path / 'run', resume=True, stop_at=7)
    assert seen.steps == expected.steps


def test_old_ones_go_when_new_ones_are_there(tmp_path, config):
    """With max_keep_ckpts=1 there is at no moment none; hashes go with their files."""
    class Watch(Hook):
        counts = []

        def before_save_checkpoint(self, runner, checkpoint):
            self.counts.append(len(list(Path(runner.work_dir).glob('*.pth'))))

    train(config, tmp_path / 'run', hook=Watch(), default_hooks=dict(checkpoint=dict(
        type='mimhd_mm.SafeCheckpointHook', interval=1, max_keep_ckpts=1)))
    assert Watch.counts == [0, 1, 1]
    assert sorted(path.name for path in (tmp_path / 'run').glob('*.pth*')) == ['epoch_3.pth', 'epoch_3.pth.sha256']
    assert (tmp_path / 'run' / 'last_checkpoint').read_text().endswith('epoch_3.pth')


@pytest.mark.slow
def test_an_evaluation_that_was_missed_is_made_up_for(tmp_path, config):
    """SIGTERM in the evaluation: the resumed run begins with it; its best checkpoint is kept."""
    class Stop(Hook):
        def before_val_iter(self, runner, batch_idx, data_batch=None):
            if runner.epoch == 1 and batch_idx == 0 and not runner._resume:
                os.kill(os.getpid(), signal.SIGTERM)

    class Count(Hook):
        def __init__(self):
            self.epochs = []

        def after_val_epoch(self, runner, metrics=None):
            self.epochs.append(runner.epoch)

    model = dict(type='ImageClassifier', backbone=dict(type='VisionTransformer', arch='deit-tiny', img_size=32),
                 head=dict(type='LinearClsHead', num_classes=2, in_channels=192))
    model['backbone'].update(arch=dict(embed_dims=24, num_layers=1, num_heads=3, feedforward_channels=24), patch_size=8)
    model['head'].update(in_channels=24)
    dataset = dict(config['train_dataloader']['dataset'], with_label=True)
    loader = dict(config['train_dataloader'], dataset=dataset)
    config = dict(config, model=model, data_preprocessor=dict(type='ClsDataPreprocessor'), train_dataloader=loader,
                  val_cfg=dict(), val_evaluator=dict(type='Accuracy'), val_dataloader=dict(
                      loader, drop_last=False, sampler=dict(type='DefaultSampler', shuffle=False)))
    config['default_hooks'] = dict(config['default_hooks'], checkpoint=dict(
        type='mimhd_mm.SafeCheckpointHook', interval=1, save_best='accuracy/top1', rule='greater'))
    _, _, status = train(config, tmp_path / 'run', hook=Stop())
    assert status == INTERRUPTED_STATUS and not list((tmp_path / 'run').glob('best*'))
    assert not list((tmp_path / 'run').glob('interrupted*'))  # the epoch's own was there already
    count = Count()
    train(config, tmp_path / 'run', hook=count, resume=True)
    assert count.epochs == [1, 2, 3] and (tmp_path / 'run' / 'last_evaluation').read_text() == '18'
    assert len(list((tmp_path / 'run').glob('best*.pth'))) == 1
    count = Count()
    train(config, tmp_path / 'run', hook=count, resume=True)
    assert count.epochs == []  # all is done


def test_a_second_signal_stops_at_once(tmp_path, config):
    """Five seconds later it is another one; before, it is the same."""
    hook = InterruptHook()
    received = []
    hook.before = {signal.SIGUSR1: lambda number, frame: received.append(number)}
    before = signal.signal(signal.SIGUSR1, hook._receive)
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert hook.received == signal.SIGUSR1 and not received
        hook.received_at -= 6
        os.kill(os.getpid(), signal.SIGUSR1)
        assert received == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


LAUNCHED = """
import os, signal, sys, time
def stop(number, frame):
    with open(os.environ['MIMHD_MM_STATUS_FILE'], 'w') as file:
        file.write('75')
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
open(sys.argv[1] + os.environ['RANK'], 'w').close()
time.sleep(0 if sys.argv[2] == 'fail' else 60)
sys.exit(3)
"""


@pytest.mark.slow
@pytest.mark.parametrize('what, status', [('wait', INTERRUPTED_STATUS), ('fail', 1)])
def test_the_launcher_keeps_the_status(tmp_path, what, status):
    """SIGUSR1 to torch's launcher reaches two processes as SIGTERM; that one failed is status 1 as before."""
    script = tmp_path / 'script.py'
    script.write_text(LAUNCHED)
    launcher = [sys.executable, '-W', 'ignore', str(ROOT / 'tools/dist_run.py'), '--standalone',
                '--nproc_per_node', '2', str(script), str(tmp_path / 'rank'), what]
    with subprocess.Popen(launcher, stderr=subprocess.PIPE) as process:
        while what == 'wait' and len(list(tmp_path.glob('rank?'))) < 2 and process.poll() is None:
            time.sleep(0.05)
        if what == 'wait':
            process.send_signal(signal.SIGUSR1)
        errors = process.communicate()[1].decode()
    assert process.returncode == status, errors


SLURM = """#!/usr/bin/env bash
echo "$(basename "$0") $*" >> {log}
[ "$(basename "$0")" = scontrol ] && exit {scontrol}
count="$(grep -c ^srun {log})"
[ "$count" -ge {calls} ] && exit 0
exit 75
"""


@pytest.mark.slow
@pytest.mark.parametrize('scontrol, requeued', [(0, True), (1, False)])
def test_slurm_starts_it_again(tmp_path, scontrol, requeued):
    """Programs in place of srun and scontrol: requeued where that works, else called again with --resume."""
    log = tmp_path / 'log'
    for program in ('srun', 'scontrol'):
        (tmp_path / program).write_text(SLURM.format(log=log, scontrol=scontrol, calls=3))
        (tmp_path / program).chmod(0o755)
    call = ['bash', str(ROOT / 'tools/slurm_train.sh'), 'gpu', 'job', 'c.py', 'dir', '--resume', 'epoch_1.pth']
    environment = dict(os.environ, PATH=f'{tmp_path}:{os.environ["PATH"]}', SLURM_JOB_ID='7')
    done = subprocess.run(call, env=environment)
    lines = log.read_text().splitlines()
    calls = [line for line in lines if line.startswith('srun')]
    assert not calls[0].endswith('--resume') and calls[0].endswith('--resume epoch_1.pth')
    assert [line for line in lines if line.startswith('scontrol')][0] == 'scontrol requeue 7'
    if requeued:
        assert done.returncode == 75 and len(calls) == 1
        log.unlink()
        subprocess.run(call, env=dict(environment, SLURM_RESTART_COUNT='1', REQUEUE='0'))
        assert log.read_text().splitlines()[0].endswith('--resume epoch_1.pth --resume')
        assert 'scontrol' not in log.read_text()
    else:
        assert done.returncode == 0 and len(calls) == 3 and calls[1].endswith('--resume epoch_1.pth --resume')


def test_iterations_are_saved_and_kept(tmp_path, config):
    """The same hook by iterations; SIGTERM at one that is saved anyway writes no second file."""
    config = dict(config, train_cfg=ITERATIONS)
    config['train_dataloader'] = dict(config['train_dataloader'], sampler=dict(type='InfiniteSampler'))
    _, _, status = train(config, tmp_path / 'run', stop_at=8, default_hooks=dict(checkpoint=dict(
        type='mimhd_mm.SafeCheckpointHook', by_epoch=False, interval=4)))
    assert status == INTERRUPTED_STATUS
    assert {path.name for path in (tmp_path / 'run').glob('*.pth')} == {'iter_4.pth', 'iter_8.pth'}
