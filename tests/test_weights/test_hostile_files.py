"""Files that would run code, fill the memory or write elsewhere are refused in a sentence, by everything that loads."""
import functools
import http.server
import json
import pickle
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.runner import load_checkpoint
from safetensors.torch import save_file
from torch import nn

from lab.robustness.hostile_files import PAYLOADS, kinds, write_kinds
from lab.tables.rows import read_tables
from mimhd_mm.compat import load_checkpoint_safely
from mimhd_mm.datasets import PackedImages
from mimhd_mm.engine.launch import read_config_file
from mimhd_mm.engine.preflight.pretrained import heads_of_file
from mimhd_mm.engine.resume.safe_loading import safe_loading
from mimhd_mm.errors import UserInputError
from mimhd_mm.models.matchers.head_matchers import read_ranking
from mimhd_mm.weights.mae_files import read_mae_file
from mimhd_mm.weights.reading import read_tensors
from mimhd_mm.weights.vit_files import read_vit_file

from ..test_tools.commands import ROOT, call, error_of

PRETRAIN = ROOT / 'configs/pretrain/mini/mimhd_vit-demo-student-p4_1xb64-coslr-15e_mnist-32px.py'
MAE = ROOT / 'configs/pretrain/mini/mae_vit-demo-p4_1xb64-coslr-30e_mnist-32px.py'
FINETUNE = ROOT / 'configs/finetune/mini/vit-micro-p8_mimhd-5e-pre_1xb64-coslr-10e_tiny-imagenet-64px.py'


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """One file of each kind, by name."""
    return write_kinds(tmp_path_factory.mktemp('hostile'))


def nothing_ran(path: Path) -> bool:
    return not list(path.parent.glob('*.ran'))


def test_the_payload_is_real(tmp_path):
    """Python's own pickle runs it; there are enough kinds."""
    path = write_kinds(tmp_path, ['bare pickle'])['bare pickle']
    assert nothing_ran(path)
    pickle.loads(path.read_bytes())
    assert path.with_name(path.name + '.ran').is_file()
    assert len(kinds()) >= 15 and len(PAYLOADS) >= 5 and set(PAYLOADS) <= set(kinds())


@safe_loading()
def by_mmengine(path):
    load_checkpoint(nn.Linear(2, 2), str(path))


@pytest.mark.parametrize('name', list(kinds()))
@pytest.mark.parametrize('read', [read_tensors, read_mae_file, read_vit_file, by_mmengine, heads_of_file],
                         ids=lambda read: read.__name__)
def test_refused_by_every_reader(name, read, files):
    path = files[name]
    if read is heads_of_file and (path.suffix == '.safetensors' or 'nested' in name):
        assert read(path) is None  # nothing of it is read, or it says nothing
        return
    with pytest.raises(UserInputError) as caught:
        read(path)
    assert str(path) in str(caught.value) and '\n' not in str(caught.value)
    assert nothing_ran(path)


@pytest.fixture(scope='module')
def data(tmp_path_factory, image_folder):
    """`train` and `val` with two classes."""
    root = tmp_path_factory.mktemp('data')
    for split in ('train', 'val'):
        shutil.copytree(image_folder, root / split)
    return root


def arguments(tool: str, bad: Path, data: Path, out: Path) -> list:
    """A call of a tool that is about to read the file, with everything else in order."""
    images = data / 'train'
    train = ['--work-dir', out / 'run', '--cfg-options', f'train_dataloader.dataset.data_root={data}',
             'train_dataloader.num_workers=0', 'train_dataloader.batch_size=8']
    two_classes = ['model.head.num_classes=2', 'data_preprocessor.num_classes=2',
                   f'val_dataloader.dataset.data_root={data}', f'test_dataloader.dataset.data_root={data}',
                   'test_dataloader.num_workers=0']
    return {
        'teacher': ['train.py', PRETRAIN, *train, f'model.target_generator.checkpoint={bad}'],
        'resume': ['train.py', MAE, '--resume', bad, *train],
        'load_from': ['train.py', MAE, *train, f'load_from={bad}'],
        'init_cfg': ['train.py', FINETUNE, *train, *two_classes,
                     f'model.backbone.init_cfg.checkpoint={bad}'],
        'test': ['test.py', FINETUNE, bad, *train, *two_classes, 'model.backbone.init_cfg=None'],
        'check_teacher': ['analysis_tools/check_teacher.py', bad],
        'rank_heads': ['analysis_tools/rank_heads.py', out / 'config.py', '--images', images, '--out', out / 'r.json'],
        'plot_attention': ['analysis_tools/plot_attention.py', PRETRAIN, bad, '--images', images, '--out',
                           out / 'a.png'],
        'plot_reconstruction': ['analysis_tools/plot_reconstruction.py', MAE, bad, '--images', images, '--out',
                                out / 'r.png'],
        'knn': ['knn.py', PRETRAIN, bad, '--train', images, '--test', data / 'val'],
        'evaluate_student': ['evaluate_student.py', bad, '--settings', 'mini', '--tasks', 'knn', '--work-dir',
                             out / 'e', '--classification-root', data],
        'vit_to_mmpretrain': ['model_converters/vit_to_mmpretrain.py', bad, out / 'v.pth'],
        'export_student': ['model_converters/export_student.py', bad, out / 's.pth', '--format', 'mmpretrain',
                           '--config', PRETRAIN],
    }[tool]


TOOLS = ('teacher', 'resume', 'load_from', 'init_cfg', 'test', 'check_teacher', 'rank_heads', 'plot_attention',
         'plot_reconstruction', 'knn', 'evaluate_student', 'vit_to_mmpretrain', 'export_student')


@pytest.mark.slow
@pytest.mark.parametrize('tool', TOOLS)
def test_refused_by_every_tool(tool, files, data, tmp_path):
    """A payload of the new format and of the old, and a bomb; the file is named and nothing is left behind."""
    for name in ('payload beside good weights', 'payload of the old format', 'zip bomb'):
        bad = files[name]
        (tmp_path / 'config.py').write_text(
            f'_base_ = {str(PRETRAIN)!r}\nmodel = dict(target_generator=dict(checkpoint={str(bad)!r}))\n')
        message = error_of(*arguments(tool, bad, data, tmp_path))
        assert str(bad) in message and re.search('refused|not a checkpoint|cannot be read', message), message
        assert nothing_ran(bad)
    left = {path.name for path in tmp_path.rglob('*') if path.suffix in ('.pth', '.png') or path.name == 'r.json'}
    assert not left


# ---- what mmengine loads ---------------------------------------------------------------------------------------------
class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and keeps no log."""

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Address of the files in `tmp_path/www`; what is downloaded goes into `tmp_path/hub`."""
    (tmp_path / 'www').mkdir()
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    handler = functools.partial(Quiet, directory=str(tmp_path / 'www'))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as found:
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield f'http://127.0.0.1:{found.server_address[1]}'
        found.shutdown()


@safe_loading()
def test_downloads_are_loaded_as_files_are(server, tmp_path, files):
    expected = nn.Linear(2, 2)
    torch.save(dict(state_dict=expected.state_dict()), tmp_path / 'www' / 'good.pth')
    model = nn.Linear(2, 2)
    load_checkpoint(model, f'{server}/good.pth')
    assert torch.equal(model.weight, expected.weight)
    assert (tmp_path / 'hub' / 'checkpoints' / 'good.pth').is_file()
    for name in PAYLOADS:
        shutil.copy(files[name], tmp_path / 'www' / files[name].name)
        with pytest.raises(UserInputError, match='refused'):
            load_checkpoint(model, f'{server}/{files[name].name}')
        assert nothing_ran(files[name])


@safe_loading()
def test_the_name_of_a_download_cannot_leave_its_folder(server, tmp_path):
    torch.save(dict(state_dict=nn.Linear(2, 2).state_dict()), tmp_path / 'www' / 'a.pth')
    load_checkpoint(nn.Linear(2, 2), f'{server}/..%2F..%2Fa.pth')  # the server ignores the dots
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob('*.pth')} == {
        'www/a.pth', 'hub/checkpoints/a.pth'}
    with pytest.raises(UserInputError, match='names no file'):
        load_checkpoint(nn.Linear(2, 2), f'{server}/')


@pytest.mark.parametrize('address', ['torchvision://resnet18', 'open-mmlab://resnet18', 'openmmlab://resnet18',
                                     'modelzoo://resnet18', 'mmcls://x', 's3://bucket/x.pth', 'pavi://x'])
@safe_loading()
def test_other_places_are_refused(address):
    with pytest.raises(UserInputError, match='download the file'):
        load_checkpoint(nn.Linear(2, 2), address)


@safe_loading()
def test_good_files_still_load(tmp_path):
    """What mmengine and metrics leave in a checkpoint; safetensors by their name; ~ and Path as before."""
    history = HistoryBuffer()
    history.update(1.5)
    model = nn.Linear(2, 2)
    content = dict(state_dict=model.state_dict(), meta=dict(epoch=1, iter=np.int64(3), seed=0),
                   message_hub=dict(log_scalars=dict(loss=history), runtime_info=dict(miou=np.float32(3.))))
    torch.save(content, tmp_path / 'a.pth')
    save_file(dict(model.state_dict()), tmp_path / 'a.safetensors')
    for name in ('a.pth', 'a.safetensors'):
        other = nn.Linear(2, 2)
        load_checkpoint(other, str(tmp_path / name), strict=True)
        assert torch.equal(other.weight, model.weight)
    loaded = load_checkpoint_safely(tmp_path / 'a.pth')
    assert loaded['message_hub']['log_scalars']['loss'].current() == 1.5 and loaded['meta']['iter'] == 3
    shared = torch.zeros(1000)
    torch.save(dict(a=shared, b=shared, c=shared[:10]), tmp_path / 'shared.pth')  # stored once
    assert set(load_checkpoint_safely(tmp_path / 'shared.pth')) == {'a', 'b', 'c'}


# ---- other files -----------------------------------------------------------------------------------------------------
DEEP = '[' * 100_000


@pytest.mark.parametrize('text', [DEEP, '{"importance": ' + DEEP, '{"importance": [1e999, 1, 1]}', '[1, 2, 3]', '\x00',
                                  '{"importance": [' + '9' * 400 + ', 1, 1]}', '{"importance": [{"__reduce__": 1}]}'],
                         ids=range(7))
def test_hostile_rankings(text, tmp_path):
    (tmp_path / 'heads.json').write_text(text)
    with pytest.raises(UserInputError, match='heads.json') as caught:
        read_ranking(tmp_path / 'heads.json', 3)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('text', [
    '!!python/object/apply:os.system ["touch MARK"]', 'a: !!python/object/new:os.system [touch MARK]', '[' * 5000,
    'a: &a [*a]', '"../../outside": {title: x, rows: [{name: x, mini: {checkpoint: x}}]}',
    '"..": {title: x, rows: [{name: x, mini: {checkpoint: x}}]}', '/elsewhere/x: {title: x, rows: []}'], ids=range(7))
def test_hostile_tables(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'tables.yml').write_text(text.replace('MARK', str(tmp_path / 'mark')))
    with pytest.raises(UserInputError, match='tables.yml') as caught:
        read_tables(tmp_path / 'tables.yml')
    assert not (tmp_path / 'mark').exists() and '\n' not in str(caught.value)


@pytest.mark.parametrize('header', [
    dict(images=dict(dtype='U8', shape=[2 ** 40, 8, 8, 3], data_offsets=[0, 16])),
    dict(images=dict(dtype='U8', shape=[-1, 4, -4, 1], data_offsets=[0, 16])),
    dict(images=dict(dtype='U8', shape=[16], data_offsets=[0, 16])), dict(images=DEEP)], ids=range(4))
def test_hostile_packed_images(header, tmp_path):
    metadata = dict(__metadata__=dict(format='mimhd_mm.packed_images.1', classes='[]'))
    text = json.dumps({**metadata, **header}).replace(f'"{DEEP}"', DEEP).encode()
    (tmp_path / 'images').write_bytes(len(text).to_bytes(8, 'little') + text + bytes(16))
    with pytest.raises(UserInputError, match='packed images'):
        PackedImages(str(tmp_path / 'images'), with_label=False)


def test_a_checkpoint_is_no_config(files):
    """Configs are programs and run; a checkpoint, which is none, does not become one."""
    for name in ('pickle payload', 'bare pickle'):
        with pytest.raises(UserInputError):
            read_config_file(files[name])
        assert nothing_ran(files[name])


def test_names_inside_a_file_lead_nowhere(teacher_file, tmp_path):
    """Keys and meta of a checkpoint are no paths for a converter."""
    content = torch.load(teacher_file, weights_only=True)
    content['state_dict']['../../escaped.pth'] = torch.zeros(1)
    content['meta'] = dict(source='../../escaped.pth', cfg='/escaped.py', num_heads=[4] * 4)
    inner = tmp_path / 'a' / 'b'
    inner.mkdir(parents=True)
    torch.save(content, inner / 'student.pth')
    call('model_converters/vit_to_mmpretrain.py', inner / 'student.pth', inner / 'out.pth', '--num-heads', 4)
    assert {path.name for path in tmp_path.rglob('*')} == {'a', 'b', 'student.pth', 'out.pth'}
