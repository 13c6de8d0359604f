"""tools/test.py: every option does something, for classification and segmentation, and wrong input is refused."""
import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from mimhd_mm.registry import MODELS

from .commands import ROOT, call, error_of

ARCH = dict(embed_dims=24, num_layers=2, num_heads=2, feedforward_channels=48)
CLASSIFIER = """
default_scope = 'mmpretrain'
data_preprocessor = dict(mean=[127.5] * 3, std=[127.5] * 3, num_classes=2, to_rgb=True)
model = dict(
    type='ImageClassifier',
    backbone=dict(type='VisionTransformer', arch={arch}, img_size=32, patch_size=8),
    head=dict(type='VisionTransformerClsHead', num_classes=2, in_channels=24))
test_dataloader = dict(
    batch_size=8, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CustomDataset', data_root={data!r}, pipeline=[dict(type='LoadImageFromFile'),
                                                                      dict(type='PackInputs')]))
test_cfg = dict()
test_evaluator = dict(type='Accuracy', topk=1)
train_dataloader = dict(
    batch_size=8, num_workers=0, sampler=dict(type='DefaultSampler'),
    dataset=dict(type='CustomDataset', data_root='not/on/this/machine', pipeline=[]))
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(type='AmpOptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))  # testing needs no GPU for it
visualizer = dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
"""
TTA = """
tta_model = dict(type='AverageClsScoreTTA')
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[[dict(type='RandomFlip', prob=1.), dict(type='RandomFlip', prob=0.)],
                                         [dict(type='PackInputs')]])]
"""
SEGMENTOR = """
default_scope = 'mmseg'
crop = (32, 32)
data_preprocessor = dict(type='SegDataPreProcessor', mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True, size=crop)
model = dict(
    type='EncoderDecoder', data_preprocessor=data_preprocessor,
    backbone=dict(type='mmpretrain.VisionTransformer', arch={arch}, img_size=32, patch_size=8, out_type='featmap'),
    decode_head=dict(type='FCNHead', in_channels=24, channels=8, num_convs=1, num_classes=2,
                     norm_cfg=dict(type='BN')),
    test_cfg=dict(mode='whole'))
test_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='BaseSegDataset', data_root={data!r}, data_prefix=dict(img_path='images', seg_map_path='maps'),
                 img_suffix='.png', metainfo=dict(classes=('a', 'b'), palette=[[0, 0, 0], [255, 255, 255]]),
                 pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]))
test_cfg = dict(type='TestLoop')
test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
"""


@pytest.fixture
def classifier(tmp_path, image_folder):
    """A config and a checkpoint of a tiny classifier."""
    return write(tmp_path, CLASSIFIER.format(arch=ARCH, data=str(image_folder)))


@pytest.fixture
def segmentor(tmp_path):
    """A config and a checkpoint of a tiny segmentor, and three images."""
    pytest.importorskip('mmseg')
    for folder in ('images', 'maps'):
        (tmp_path / folder).mkdir()
    for index, name in enumerate('abc'):
        Image.new('RGB', (32, 32), (80 * index, 0, 0)).save(tmp_path / 'images' / f'{name}.png')
        Image.fromarray(np.eye(32, dtype=np.uint8)).save(tmp_path / 'maps' / f'{name}.png')
    return write(tmp_path, SEGMENTOR.format(arch=ARCH, data=str(tmp_path)))


def write(folder, text: str) -> tuple:
    """Write a config and a checkpoint of its model with random weights."""
    config, checkpoint = folder / 'config.py', folder / 'checkpoint.pth'
    config.write_text(text)
    cfg = Config.fromfile(config)
    if cfg.default_scope == 'mmseg':
        from mmseg.utils import register_all_modules
        register_all_modules()
    init_default_scope(cfg.default_scope)
    torch.save(dict(state_dict=MODELS.build(dict(cfg.model)).state_dict(), meta={}), checkpoint)
    return config, checkpoint, '--work-dir', folder / 'work_dir'


def metrics(folder, *arguments) -> dict:
    """The metrics that a call of the tool writes."""
    call('test.py', *arguments, '--out', folder / 'metrics.json', '--out-item', 'metrics')
    return json.loads((folder / 'metrics.json').read_text())


def test_metrics_and_predictions_agree(classifier, tmp_path):
    scores = metrics(tmp_path, *classifier)
    call('test.py', *classifier, '--out', tmp_path / 'predictions.pkl')
    predictions = pickle.loads((tmp_path / 'predictions.pkl').read_bytes())
    right = [int(sample['pred_label']) == int(sample['gt_label']) for sample in predictions]
    assert len(right) == 32
    assert scores == {'accuracy/top1': pytest.approx(100 * sum(right) / 32)}


def test_amp_changes_the_arithmetic(classifier, tmp_path):
    scores = []
    for extra in ([], ['--amp']):
        call('test.py', *classifier, *extra, '--out', tmp_path / 'predictions.pkl')
        scores.append([sample['pred_score'] for sample in pickle.loads((tmp_path / 'predictions.pkl').read_bytes())])
    exact, mixed = (torch.stack(list(map(torch.as_tensor, rows))).float() for rows in scores)
    assert not torch.equal(exact, mixed)
    assert torch.allclose(exact, mixed, atol=0.05)


def test_paints_every_nth_image(classifier, tmp_path):
    call('test.py', *classifier, '--show-dir', tmp_path / 'painted', '--interval', 4)
    # 8 of 32 images; pictures are named after files, and both class folders have the same names
    assert len(list((tmp_path / 'painted').glob('*.png'))) == 4


def test_tta(classifier, tmp_path):
    config = classifier[0]
    assert "'tta_model'" not in config.read_text() and 'tta_model' in error_of('test.py', *classifier, '--tta')
    config.write_text(config.read_text() + TTA)
    call('test.py', *classifier, '--tta', '--out', tmp_path / 'predictions.pkl')
    assert len(pickle.loads((tmp_path / 'predictions.pkl').read_bytes())) == 32


def test_segmentation(segmentor, tmp_path):
    assert 0 <= metrics(tmp_path, *segmentor)['mIoU'] <= 100
    call('test.py', *segmentor, '--out', tmp_path / 'labels', '--show-dir', tmp_path / 'painted')
    assert sorted(path.name for path in (tmp_path / 'labels').iterdir()) == ['a.png', 'b.png', 'c.png']
    assert len(list((tmp_path / 'painted').rglob('*.png'))) == 3


def test_segmentation_refuses_what_has_no_effect(segmentor, tmp_path):
    assert 'folder' in error_of('test.py', *segmentor, '--out', tmp_path / 'x.pkl')
    assert '--interval' in error_of('test.py', *segmentor, '--show-dir', tmp_path / 'painted', '--interval', 2)


def test_missing_checkpoint(classifier, tmp_path):
    assert str(tmp_path / 'nothing.pth') in error_of('test.py', classifier[0], tmp_path / 'nothing.pth')


def test_truncated_checkpoint(classifier):
    checkpoint = classifier[1]
    checkpoint.write_bytes(checkpoint.read_bytes()[:2000])
    assert str(checkpoint) in error_of('test.py', *classifier)


def test_checkpoint_of_another_model(classifier):
    checkpoint = classifier[1]
    saved = torch.load(checkpoint, weights_only=True)
    saved['state_dict'] = {key: value for key, value in saved['state_dict'].items() if key.startswith('backbone.')}
    torch.save(saved, checkpoint)
    message = error_of('test.py', *classifier)
    assert str(checkpoint) in message and 'head.' in message and '2 such tensors' in message


def test_checkpoint_of_another_size(classifier):
    checkpoint = classifier[1]
    saved = torch.load(checkpoint, weights_only=True)
    saved['state_dict']['head.layers.head.bias'] = torch.zeros(7)
    torch.save(saved, checkpoint)
    message = error_of('test.py', *classifier)
    assert 'head.layers.head.bias' in message and 'size mismatch' in message


def test_pretraining_config():
    config = ROOT / 'configs/pretrain/mini/mae_vit-demo-p4_1xb64-coslr-30e_mnist-32px.py'
    assert 'tools/knn.py' in error_of('test.py', config, 'nothing.pth')


@pytest.mark.parametrize('options, named', [
    (['--out-item', 'pred'], '--out-item'), (['--interval', 2], '--interval'), (['--wait-time', 1], '--wait-time'),
    (['--out', 'x.txt'], "'x.txt'"), (['--out', 'x.txt', '--out-item', 'metrics'], "'x.txt'")])
def test_options_that_would_do_nothing(classifier, options, named):
    assert named in error_of('test.py', *classifier, *options)


def test_show_without_display(classifier, monkeypatch):
    monkeypatch.setattr('sys.platform', 'linux')
    for name in ('DISPLAY', 'WAYLAND_DISPLAY'):
        monkeypatch.delenv(name, raising=False)
    assert '--show-dir' in error_of('test.py', *classifier, '--show')


def test_undecodable_test_image(classifier, image_folder, tmp_path):
    shutil.copytree(image_folder, tmp_path / 'images')
    for path in (tmp_path / 'images').rglob('*.png'):
        path.write_bytes(b'no image')
    message = error_of('test.py', *classifier, '--cfg-options',
                       f'test_dataloader.dataset.data_root={tmp_path / "images"}')
    assert str(tmp_path / 'images') in message
