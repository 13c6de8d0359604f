"""tools/train.py: wrong input is one sentence and exit status 1; every tool has a --help."""
import argparse
import os
import shutil
import subprocess
import sys

import pytest
import torch
from mmengine.optim import build_optim_wrapper

from mimhd_mm.compat import load_checkpoint_safely
from mimhd_mm.engine.launch import add_common_arguments, load_config

from .commands import ROOT, error_of, load_tool

CONFIG = ROOT / 'configs/pretrain/mini/mae_vit-demo-p4_1xb64-coslr-30e_mnist-32px.py'
TOOLS = sorted(path.relative_to(ROOT / 'tools').as_posix() for path in (ROOT / 'tools').rglob('*.py')
               if path.name != 'digit_scenes.py')  # which belongs to quickstart.py and is no command


@pytest.mark.parametrize('name', TOOLS)
def test_help(name, capsys):
    with pytest.raises(SystemExit) as caught:
        load_tool(name).main(['--help'])
    assert caught.value.code in (0, None)
    assert 'usage:' in capsys.readouterr().out


def test_missing_config():
    assert "'configs/nothing.py'" in error_of('train.py', 'configs/nothing.py')


@pytest.mark.parametrize('text', ['model = dict(\n', "_base_ = './nothing.py'\n", "_base_ = 'nothing::x/y.py'\n"])
def test_config_that_cannot_be_read(tmp_path, text):
    config = tmp_path / 'config.py'
    config.write_text(text)
    assert str(config) in error_of('train.py', config)


def refused_data(folder) -> str:
    """The sentence about a data set in ``folder``."""
    return error_of('train.py', CONFIG, '--cfg-options', f'train_dataloader.dataset.data_root={folder}')


def test_missing_data_folder(tmp_path):
    assert str(tmp_path / 'nowhere') in refused_data(tmp_path / 'nowhere')


def test_empty_data_folder(tmp_path):
    (tmp_path / 'train' / '0').mkdir(parents=True)
    assert str(tmp_path / 'train') in refused_data(tmp_path)


def test_image_that_does_not_decode(tmp_path):
    image = tmp_path / 'train' / '0' / 'broken.png'
    image.parent.mkdir(parents=True)
    image.write_bytes(b'\x89PNG but no more')
    assert str(image) in refused_data(tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason='a GPU is here')
def test_gpu_precision_without_gpu(image_folder):
    message = error_of('train.py', CONFIG, '--cfg-options', 'optim_wrapper.type=AmpOptimWrapper',
                       f'train_dataloader.dataset.data_root={image_folder}')
    assert 'AmpOptimWrapper' in message and '--amp' in message


@pytest.mark.parametrize('name', sorted({*TOOLS} - {'quickstart.py', 'dist_run.py'}))
def test_as_a_process_every_tool_does_the_same(name):
    """What ``run_tool`` makes of ``main``: the next test starts one of them."""
    assert (ROOT / 'tools' / name).read_text().endswith("if __name__ == '__main__':\n    run_tool(main)\n")


@pytest.mark.slow
def test_as_a_process(tmp_path):
    """The same through the interpreter: status 1, exactly one line of error, no traceback."""
    done = subprocess.run(
        [sys.executable, str(ROOT / 'tools' / 'train.py'), 'nothing.py'], cwd=tmp_path, capture_output=True, text=True,
        env=dict(os.environ, PYTHONPATH=str(ROOT), PYTHONWARNINGS='ignore'))
    assert done.returncode == 1, done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith('error:')] == done.stderr.splitlines()[-1:]
    assert 'nothing.py' in done.stderr and 'Traceback' not in done.stderr


def test_a_short_run(tmp_path, image_folder):
    """Two epochs of MAE through the command line; a bare --resume goes on where the first call ended."""
    data = tmp_path / 'data'
    shutil.copytree(image_folder, data / 'train')
    options = ['--work-dir', tmp_path / 'run', '--no-pin-memory', '--no-persistent-workers', '--cfg-options',
               f'train_dataloader.dataset.data_root={data}', 'train_dataloader.num_workers=0',
               'train_dataloader.batch_size=16', 'default_hooks.checkpoint.interval=1']
    train = load_tool('train.py').main
    first = [str(argument) for argument in (CONFIG, *options)]
    train([*first, 'train_cfg.max_epochs=1', 'param_scheduler=[]'])
    assert (tmp_path / 'run' / 'epoch_1.pth').is_file()
    train([str(CONFIG), '--resume', *first[1:], 'train_cfg.max_epochs=2', 'param_scheduler=[]'])
    saved = load_checkpoint_safely(tmp_path / 'run' / 'epoch_2.pth')
    assert saved['meta']['iter'] == 4  # 2 epochs of 32 images, 16 a batch
    assert all(tensor.isfinite().all() for tensor in saved['state_dict'].values())


@pytest.mark.skipif(torch.cuda.is_available(), reason='a GPU is here')
@pytest.mark.parametrize('changes, kind', [
    (['--amp'], 'GuardedCPUAmpOptimWrapper'), (['--cfg-options', 'optim_wrapper.type=OptimWrapper'], 'OptimWrapper')])
def test_configs_with_mixed_precision_can_be_changed(changes, kind):
    """What the AMP configs say of it goes where the wrapper knows nothing of it."""
    parser = argparse.ArgumentParser()
    add_common_arguments(parser)
    config = ROOT / 'configs' / 'pretrain' / 'mimhd_vit-base-p16_8xb512-amp-coslr-100e_in1k.py'
    wrapper = load_config(parser.parse_args([str(config), *changes])).optim_wrapper
    assert wrapper.type.split('.')[-1] == kind and not {'dtype', 'loss_scale'} & set(wrapper)
    build_optim_wrapper(torch.nn.Linear(2, 2), dict(wrapper, paramwise_cfg=None))


@pytest.mark.slow
def test_resume_without_a_checkpoint_starts_where_the_config_says(tmp_path, image_folder):
    """As a job does that a machine's failure ended before its first checkpoint."""
    data = tmp_path / 'data'
    shutil.copytree(image_folder, data / 'train')
    options = ['--no-pin-memory', '--cfg-options', f'train_dataloader.dataset.data_root={data}',
               'train_dataloader.num_workers=0', 'train_dataloader.batch_size=32', 'train_cfg.max_epochs=1',
               'param_scheduler=[]', 'optim_wrapper.optimizer.lr=0', 'default_hooks.checkpoint.interval=1']
    train = load_tool('train.py').main
    train([str(CONFIG), '--work-dir', str(tmp_path / 'first'), *options, 'randomness.seed=5'])
    start = tmp_path / 'first' / 'epoch_1.pth'
    train([str(CONFIG), '--work-dir', str(tmp_path / 'second'), '--resume', *options, f'load_from={start}'])
    first, second = (load_checkpoint_safely(tmp_path / name / 'epoch_1.pth')['state_dict']
                     for name in ('first', 'second'))
    assert all(torch.equal(value, second[key]) for key, value in first.items())
