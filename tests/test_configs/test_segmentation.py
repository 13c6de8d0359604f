"""Segmentation: the two backbones, the configs, a run from a student to a mIoU and pictures, and the data check."""
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner.checkpoint import load_checkpoint
from mmpretrain.models import VisionTransformer
from PIL import Image

from mimhd_mm.datasets.segmentation_check import (
    check_pairs,
    check_segmentation_config,
    check_segmentation_dataset,
    list_pairs,
)
from mimhd_mm.errors import UserInputError
from mimhd_mm.models.backbones.rel_pos_vit import RelPosViT, resize_table
from mimhd_mm.registry import MODELS
from mimhd_mm.visualization.seg_panel_visualizer import GAP, LINE, side_by_side

from ..conftest import SIZE, STUDENT, read_config
from ..test_tools.commands import ROOT, call, error_of, load_tool
from .test_finetune import heads_of

CONFIGS = sorted((ROOT / 'configs' / 'segmentation').rglob('*.py'))
MINI = ROOT / 'configs/segmentation/mini/mimhd-vit-micro-p8_upernet_1xb8-1k_camvid-128x128.py'
FEATURES = dict(arch=STUDENT, out_type='featmap', out_indices=[0, 2], **SIZE)  # 4 x 4 patches
ARCH = dict(STUDENT, num_layers=4)


# ---------------------------------------------------------------------------------------------------- RelPosViT

def build_pair(**kwargs):
    """A VisionTransformer with random weights and a RelPosViT that has loaded them."""
    plain, ours = VisionTransformer(**FEATURES, **kwargs), RelPosViT(**FEATURES, **kwargs)
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    missing, unexpected = ours.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and all('relative_position_bias_table' in key for key in missing)
    return plain, ours


@pytest.mark.parametrize('size', [(32, 32), (48, 24), (40, 64), (45, 30)])
def test_features_are_the_plain_ones_before_training(size):
    for kwargs in (dict(), dict(final_norm=False), dict(with_cls_token=False)):
        plain, ours = build_pair(**kwargs)
        images = torch.randn(2, 3, *size)
        for expected, found in zip(plain(images), ours(images)):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_layer_scale_at_one_changes_no_feature():
    plain, _ = build_pair()
    ours = RelPosViT(**FEATURES, layer_scale_init_value=1.0)
    missing, _ = ours.load_state_dict(plain.state_dict(), strict=False)
    assert {key.rsplit('.', 1)[0].split('.', 2)[2] for key in missing if 'table' not in key} == {
        'attn.gamma1', 'ffn.gamma2'}
    images = torch.randn(2, 3, 32, 32)
    for expected, found in zip(plain(images), ours(images)):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_every_table_learns():
    _, ours = build_pair()
    sum(output.square().sum() for output in ours(torch.randn(2, 3, 32, 32))).backward()
    for name, parameter in ours.named_parameters():
        if name.endswith('table'):
            assert (parameter.grad != 0).all(), name
        if name.endswith('table_class'):  # where [class] of the last block looks reaches no feature
            assert (parameter.grad[:, 0] != 0).all(), name
            assert (parameter.grad[:, 1:] != 0).all() != name.startswith('layers.2.'), name


@pytest.mark.parametrize('grid', [(4, 4), (3, 5)])
def test_attention_is_softmax_of_logits_plus_bias(grid):
    """Against loops over queries and keys, with random tables and one-hot values that make the output the weights."""
    _, ours = build_pair()
    attention = ours.layers[1].attn
    torch.nn.init.normal_(attention.relative_position_bias_table)
    torch.nn.init.normal_(attention.relative_position_bias_table_class)
    height, width = grid
    tokens, heads, dims = 1 + height * width, 3, 8
    x = torch.randn(1, tokens, 24)
    q, k, v = attention.qkv(x).view(tokens, 3, heads, dims).permute(1, 2, 0, 3)  # each (M, L, d)
    logits = q @ k.transpose(-2, -1) / dims ** 0.5  # (M, L, L)

    table = resize_table(attention.relative_position_bias_table, grid)
    bias = torch.zeros(heads, tokens, tokens)
    to_class, from_class, itself = attention.relative_position_bias_table_class.unbind(1)
    for query in range(tokens):
        for key in range(tokens):
            (i, j), (m, n) = (divmod(token - 1, width) for token in (query, key))
            bias[:, query, key] = (itself if query == key == 0 else to_class if key == 0 else
                                   from_class if query == 0 else table[:, i - m + height - 1, j - n + width - 1])
    weights = (logits + bias).softmax(dim=-1)  # (M, L, L)
    expected = attention.proj((weights @ v).transpose(0, 1).reshape(1, tokens, 24))
    torch.testing.assert_close(attention(x, grid), expected, rtol=1e-5, atol=1e-5)


def test_stretched_table_keeps_centre_and_ends():
    table = torch.randn(2, 7, 7)
    wide = resize_table(table, (6, 3))
    assert wide.shape == (2, 11, 5)
    torch.testing.assert_close(wide[:, 5, 2], table[:, 3, 3])
    torch.testing.assert_close(wide[:, [0, 0, -1, -1], [0, -1, 0, -1]], table[:, [0, 0, -1, -1], [0, -1, 0, -1]])
    assert resize_table(table, (4, 4)) is table


def test_tables_of_another_crop_load():
    _, ours = build_pair()
    torch.nn.init.constant_(ours.layers[0].attn.relative_position_bias_table, 0.5)
    other = RelPosViT(**{**FEATURES, 'img_size': (48, 64)})
    other.load_state_dict(ours.state_dict())
    torch.testing.assert_close(other.layers[0].attn.relative_position_bias_table.data, torch.full((3, 11, 15), 0.5))


def test_depths_are_the_blocks():
    _, ours = build_pair()
    assert ours.get_layer_depth('backbone.layers.1.attn.relative_position_bias_table', 'backbone.') == (2, 5)
    assert ours.get_layer_depth('backbone.pos_embed', 'backbone.') == (0, 5)


def test_frozen_blocks_freeze_their_tables():
    ours = RelPosViT(**FEATURES, frozen_stages=2)
    grads = [layer.attn.relative_position_bias_table.requires_grad for layer in ours.layers]
    assert grads == [False, False, True]


# ------------------------------------------------------------------------------------------------------ configs

def shrink(cfg: Config) -> Config:
    """The same config with a tiny network for 32 px crops."""
    model, arch = cfg.model, dict(ARCH)
    model.data_preprocessor.size = (32, 32)
    model.backbone.pop('arch')  # a dict would be merged into
    model.backbone.update(arch=arch, img_size=(32, 32), patch_size=8, out_indices=[0, 1, 2, 3], init_cfg=None)
    if model.backbone.get('layer_cfgs'):  # TinyMIM's last block; 4 heads for 16
        model.backbone.layer_cfgs = [dict()] * 3 + [dict(num_heads=4)]
    model.decode_head.update(in_channels=[24] * 4, channels=24)
    if model.neck is None:  # a linear layer
        model.backbone.frozen_stages = 4
    else:
        model.neck.embed_dim = 24
        model.auxiliary_head.update(in_channels=24, channels=24)
    return cfg


@pytest.fixture
def mmseg():
    package = pytest.importorskip('mmseg')
    from mmseg.utils import register_all_modules
    register_all_modules(init_default_scope=False)
    return package


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_builds_and_takes_a_step(path, mmseg):
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample
    cfg = shrink(read_config(path))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
        model.init_weights()
    samples = []
    for _ in range(2):
        sample = SegDataSample(metainfo=dict(img_shape=(32, 32)))
        sample.gt_sem_seg = PixelData(data=torch.randint(0, cfg.model.decode_head.num_classes, (1, 32, 32)))
        samples.append(sample)
    losses = model.train()(torch.randn(2, 3, 32, 32), samples, mode='loss')
    sum(value for key, value in losses.items() if 'loss' in key).backward()
    assert all(torch.isfinite(value).all() for value in losses.values())
    unused = [name for name, parameter in model.named_parameters()
              if parameter.requires_grad and parameter.grad is None]
    assert not unused  # so that several processes need no find_unused_parameters
    linear = '_linear_' in path.stem
    assert ('aux.loss_ce' in losses) != linear and 'decode.loss_ce' in losses
    assert all(parameter.requires_grad != linear for parameter in model.backbone.parameters())
    assert isinstance(model.backbone, RelPosViT) == ('-relpos_' in path.stem)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_name_agrees_with_content(path):
    cfg = read_config(path)
    model = cfg.model
    name = re.fullmatch(
        r'(mimhd|tinymim|dmae|mae)-vit-([a-z-]+?)(?:-p(\d+))?(-relpos)?_(upernet|linear)_'
        r'(\d)xb(\d+)(-amp)?-(\d+k?)_([\w-]+)-(\d+)x(\d+)', path.stem)
    algorithm, size, patch, relpos, decoder, gpus, batch, amp, iterations, data, height, width = name.groups()
    assert cfg.train_dataloader.batch_size == int(batch)
    assert cfg.auto_scale_lr.base_batch_size == int(gpus) * int(batch)
    assert cfg.optim_wrapper.type == ('AmpOptimWrapper' if amp else 'OptimWrapper')
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[-1].end == int(iterations.replace('k', '000'))
    assert cfg.param_scheduler[0].end == cfg.param_scheduler[1].begin
    assert cfg.train_cfg.max_iters % cfg.train_cfg.val_interval == 0
    assert cfg.default_hooks.checkpoint.interval == cfg.train_cfg.val_interval
    crop = (int(height), int(width))
    random_crop = next(step for step in cfg.train_dataloader.dataset.pipeline if step.type == 'RandomCrop')
    assert crop == tuple(random_crop.crop_size) == tuple(model.data_preprocessor.size)
    assert crop == tuple(model.backbone.img_size) == tuple(model.test_cfg.crop_size)
    assert model.test_cfg.mode == 'slide'
    assert model.backbone.patch_size == int(patch or 16) == model.data_preprocessor.test_cfg.size_divisor
    arch = {'base': 'base', 'small': 'deit-small', 'tiny': 'deit-tiny'}.get(size)
    assert model.backbone.arch == arch or arch is None
    settings = VisionTransformer.arch_zoo[arch] if arch else model.backbone.arch
    heads = [model.decode_head]
    if decoder == 'linear':  # nothing below learns, nothing in it bends
        assert model.neck is model.auxiliary_head is model.decode_head.act_cfg is None
        assert model.backbone.frozen_stages == settings['num_layers'] and model.decode_head.kernel_size == 1
    else:
        heads.append(model.auxiliary_head)
        assert model.neck.embed_dim == settings['embed_dims'] == model.auxiliary_head.in_channels
    assert model.decode_head.in_channels == [settings['embed_dims']] * 4
    assert model.backbone.out_indices[-1] == settings['num_layers'] - 1
    classes = {'ade20k': 150, 'camvid': 11, 'digit-scenes': 11}[data]
    assert all(head.num_classes == classes for head in heads)
    assert all(cfg[key].dataset.reduce_zero_label for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'))
    assert cfg.sync_bn == ('torch' if data == 'ade20k' else None)
    assert 'tta_model' in cfg and 'tta_pipeline' in cfg
    if algorithm == 'mae':
        assert Path(model.backbone.init_cfg.checkpoint).name.startswith('mae_vit-base-p16_')
        return
    checkpoint = model.backbone.init_cfg.checkpoint.replace(  # where the demo trains this one
        'quickstart_out/student/', f'work_dirs/{load_tool("quickstart.py").STUDENT.stem}/')
    source = re.fullmatch(r'work_dirs/([\w.-]+)/epoch_(\d+)\.pth', checkpoint)
    pretraining = [found for found in (ROOT / 'configs' / 'pretrain').rglob('*.py') if found.stem == source.group(1)]
    assert len(pretraining) == 1 and f'vit-{size}-' in source.group(1)
    assert f'-{source.group(2)}e_' in source.group(1) and source.group(1).startswith(algorithm + '_')
    assert heads_of(model.backbone) == heads_of(read_config(pretraining[0]).model.backbone)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_header_is_a_contract(path):
    header = path.read_text().split('_base_')[0]
    command = re.search(r'Command: .*?(configs/\S+\.py)', header).group(1)
    assert (ROOT / command).is_file() and command.endswith(path.name)
    assert 'Time: ' in header and 'Result: ' in header


# ------------------------------------------------------------------------------------------------------- a run

def write_scenes(root: Path, classes: int = 11, train: int = 4, val: int = 2) -> Path:
    """Images of coloured blocks, 64 x 48, with label maps 0 to ``classes``, in ADE20K's layout."""
    rng = np.random.default_rng(0)
    for split, number in (('training', train), ('validation', val)):
        for folder in ('images', 'annotations'):
            (root / folder / split).mkdir(parents=True)
        for index in range(number):
            labels = rng.integers(0, classes + 1, (3, 4), dtype=np.uint8)
            labels[0, 0], labels[-1, -1] = 0, classes
            labels = labels.repeat(16, axis=0).repeat(16, axis=1)
            Image.fromarray(np.stack([labels * 20] * 3, axis=-1)).save(root / 'images' / split / f'{index}.jpg')
            Image.fromarray(labels).save(root / 'annotations' / split / f'{index}.png')
    return root


@pytest.fixture
def scenes(tmp_path):
    return write_scenes(tmp_path / 'scenes')


@pytest.fixture
def student(build_mimhd, tmp_path):
    """A checkpoint of a tiny MIM-HD run with the blocks that four levels of a pyramid need."""
    model = build_mimhd(backbone=dict(arch=ARCH))
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'student.pth')
    return tmp_path / 'student.pth', model.backbone.state_dict()


RUN = """
_base_ = {base!r}
model = dict(
    data_preprocessor=dict(size=(32, 32)),
    backbone=dict(type={backbone!r}, arch=dict({arch}, _delete_=True), img_size=(32, 32), out_indices=[0, 1, 2, 3],
                  init_cfg=dict(checkpoint={checkpoint!r})),
    neck=dict(embed_dim=24),
    decode_head=dict(in_channels=[24] * 4, channels=24),
    auxiliary_head=dict(in_channels=24, channels=24),
    test_cfg=dict(crop_size=(32, 32), stride=(24, 24)))
train_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='RandomCrop', crop_size=(32, 32)),
    dict(type='PackSegInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 48), keep_ratio=True), dict(type='LoadAnnotations'),
    dict(type='PackSegInputs')]
tta_pipeline = [  # 36 rows are no whole number of patches
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[
        [dict(type='Resize', scale=scale, keep_ratio=True) for scale in ((48, 36), (64, 48))],
        [dict(type='RandomFlip', prob=0.), dict(type='RandomFlip', prob=1., direction='horizontal')],
        [dict(type='LoadAnnotations')], [dict(type='PackSegInputs')]])]
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False,
                        dataset=dict(data_root={data!r}, pipeline=train_pipeline))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root={data!r}, pipeline=test_pipeline))
test_dataloader = val_dataloader
param_scheduler = []
train_cfg = dict(max_iters=2, val_interval=2)
default_hooks = dict(checkpoint=dict(interval=2))
"""


def write_run(folder: Path, data: Path, checkpoint: Path, backbone: str) -> Path:
    path = folder / 'run.py'
    path.write_text(RUN.format(base=str(MINI), data=str(data), checkpoint=str(checkpoint), backbone=backbone,
                               arch=', '.join(f'{key}={value}' for key, value in ARCH.items())))
    return path


@pytest.mark.parametrize('backbone', ['mmpretrain.VisionTransformer', 'mimhd_mm.RelPosViT'])
def test_student_checkpoint_fills_the_backbone(backbone, student, scenes, tmp_path, mmseg):
    checkpoint, weights = student
    cfg = Config.fromfile(write_run(tmp_path, scenes, checkpoint, backbone))
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg.model)
        model.init_weights()
    loaded = model.backbone.state_dict()
    left = {key for key in loaded if key not in weights}
    assert all('relative_position_bias_table' in key for key in left) and bool(left) == ('RelPos' in backbone)
    assert set(weights) - set(loaded) == {'ln1.weight', 'ln1.bias'}  # the last norm, which segmentation leaves out
    for key, value in loaded.items():
        assert torch.equal(value, weights[key]) if key in weights else not value.any(), key


@pytest.mark.slow
def test_from_a_student_to_mIoU_and_pictures(student, scenes, tmp_path, mmseg):
    """tools/train.py, then tools/test.py plain, painting, and with sizes and mirror images; then mmseg's own API."""
    config = write_run(tmp_path, scenes, student[0], 'mimhd_mm.RelPosViT')
    work = tmp_path / 'work'
    call('train.py', config, '--work-dir', work)
    trained = work / 'iter_2.pth'
    log = next(work.rglob('*.log')).read_text()
    assert 'mIoU' in log and 'decode.loss_ce' in log

    scores = []
    for extra in (['--show-dir', tmp_path / 'painted'], ['--tta']):
        call('test.py', config, trained, '--work-dir', work, *extra,
             '--out', tmp_path / 'metrics.json', '--out-item', 'metrics')
        scores.append(json.loads((tmp_path / 'metrics.json').read_text()))
    assert all(0 <= score['mIoU'] <= 100 for score in scores)
    pictures = sorted((tmp_path / 'painted').rglob('*.png'))
    assert len(pictures) == 2
    with Image.open(pictures[0]) as picture:
        assert picture.width == 3 * 64 + 2 * GAP and picture.height > LINE + 48

    from mmseg.apis import inference_model, init_model
    model = init_model(str(config), str(trained), device='cpu')
    result = inference_model(model, str(scenes / 'images/validation/0.jpg'))
    assert result.pred_sem_seg.data.shape == (1, 48, 64)
    tables = torch.cat([layer.attn.relative_position_bias_table.flatten() for layer in model.backbone.layers])
    assert tables.abs().max() > 0  # they were trained, and came back
    load_checkpoint(model, str(trained), strict=True)


@pytest.mark.slow
def test_crops_that_are_wider_than_tall(student, scenes, tmp_path, mmseg):
    """Trained and slid over 32 x 48, from a student of 32 x 32; with and without relative positions."""
    config = write_run(tmp_path, scenes, student[0], 'mimhd_mm.RelPosViT')
    config.write_text(config.read_text().replace('(32, 32)', '(32, 48)'))
    call('train.py', config, '--work-dir', tmp_path / 'work', '--cfg-options',
         'model.backbone.type=mmpretrain.VisionTransformer')
    call('train.py', config, '--work-dir', tmp_path / 'work')
    trained = torch.load(tmp_path / 'work/iter_2.pth', weights_only=False)['state_dict']
    assert trained['backbone.pos_embed'].shape[1] == 1 + 4 * 6
    assert trained['backbone.layers.0.attn.relative_position_bias_table'].shape == (3, 7, 11)


def test_students_that_do_not_fit_are_refused_before_training(student, scenes, tmp_path, mmseg):
    checkpoint = student[0]
    config = write_run(tmp_path, scenes, checkpoint, 'mimhd_mm.RelPosViT')
    tensors = torch.load(checkpoint, weights_only=True)['state_dict']
    bare = tmp_path / 'bare.pth'
    torch.save({key.removeprefix('backbone.'): value for key, value in tensors.items()}, bare)
    option = 'model.backbone.init_cfg.checkpoint'
    message = error_of('train.py', config, '--work-dir', tmp_path / 'work', '--cfg-options', f'{option}={bare}')
    assert "no tensor under 'backbone.'" in message and 'vit_to_mmpretrain.py' in message
    message = error_of('train.py', config, '--work-dir', tmp_path / 'work', '--cfg-options',
                       'model.backbone.arch.embed_dims=48')
    assert '(1, 1, 24) in the file but (1, 1, 48) in the network' in message
    assert option in error_of('train.py', config, '--work-dir', tmp_path / 'work', '--cfg-options', f'{option}=no.pth')
    assert not list((tmp_path / 'work').rglob('*.pth'))


# ---------------------------------------------------------------------------------------------------- pictures

def test_side_by_side_shows_the_labels_in_their_colours():
    palette = [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    image = np.full((4, 60, 3), 7, dtype=np.uint8)
    truth, prediction = np.full((4, 60), 255, dtype=np.uint8), np.zeros((4, 60), dtype=np.uint8)
    prediction[:, 30:] = 2
    picture = side_by_side([image, truth, prediction], ['image', 'truth', 'prediction'], ('a', 'b', 'c'), palette)
    rows = picture[LINE:LINE + 4]
    assert (rows[:, :60] == 7).all()
    assert (rows[:, 60 + GAP:120 + GAP] == 0).all()  # not scored
    assert (rows[:, 120 + 2 * GAP:150 + 2 * GAP] == palette[0]).all() and (rows[:, -30:] == palette[2]).all()
    legend = picture[LINE + 4 + GAP:].reshape(-1, 3).tolist()
    assert palette[0] in legend and palette[2] in legend and palette[1] not in legend


# ---------------------------------------------------------------------------------------------------- data check

def test_counts(scenes, capsys):
    call('dataset_converters/check_ade20k.py', scenes, '--num-classes', 11)
    lines = capsys.readouterr().out.splitlines()
    assert re.search(r'training +4 +4 +4 +64 x 48 +0\.\.11 +\d+ of 11 +\d', lines[-2])
    assert re.search(r'validation +2 +2 +2 ', lines[-1])
    call('dataset_converters/check_ade20k.py', scenes, '--num-classes', 12, '--no-reduce-zero-label', '--sample', 1)
    assert re.search(r'training +4 +4 +1 ', capsys.readouterr().out)


def replace(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path)


BAD = {
    'missing': (lambda root: (root / 'annotations/training/2.png').unlink(), r'1 of 4 images .*2\.jpg.*2\.png'),
    'range': (lambda root: replace(root / 'annotations/validation/1.png', np.full((48, 64), 12, np.uint8)),
              r'1\.png.* label 12; .* 11 classes'),
    'size': (lambda root: replace(root / 'annotations/training/0.png', np.zeros((48, 60), np.uint8)),
             r'60 x 48 .* 64 x 48'),
    'unreadable annotation': (lambda root: (root / 'annotations/training/1.png').write_bytes(b'no picture'),
                              r'1\.png.* cannot be decoded'),
    'truncated image': (lambda root: (root / 'images/training/3.jpg').write_bytes(
        (root / 'images/training/3.jpg').read_bytes()[:300]), r'3\.jpg.* cannot be decoded'),
    'coloured annotation': (lambda root: replace(root / 'annotations/training/0.png', np.zeros((48, 64, 3), np.uint8)),
                            r'3 channels'),
    'no folder': (lambda root: (root / 'images').rename(root / 'pictures'), r'No folder .*images/training'),
}


@pytest.mark.parametrize('problem', BAD, ids=lambda name: name.replace(' ', '-'))
def test_each_problem_is_one_sentence(problem, scenes):
    spoil, expected = BAD[problem]
    spoil(scenes)
    assert re.search(expected, error_of('dataset_converters/check_ade20k.py', scenes, '--num-classes', 11))


@pytest.mark.parametrize('option', [('--num-classes', 0), ('--sample', -1)])
def test_senseless_numbers(option, scenes):
    assert option[0] in error_of('dataset_converters/check_ade20k.py', scenes, *option)


def test_ignored_label_is_in_range(scenes):
    replace(scenes / 'annotations/training/0.png', np.full((48, 64), 255, np.uint8))
    pairs = list_pairs(scenes / 'images/training', scenes / 'annotations/training')
    report = check_pairs(pairs, 11, reduce_zero_label=True)
    assert report.unscored >= 0.25 and max(report.labels) == 11


def test_check_of_a_config(student, scenes, tmp_path, mmseg):
    cfg = Config.fromfile(write_run(tmp_path, scenes, student[0], 'mmpretrain.VisionTransformer'))
    check_segmentation_config(cfg)
    assert check_segmentation_dataset(cfg.train_dataloader.dataset, 11).images == 4
    with pytest.raises(UserInputError, match='11 classes and the head predicts 150'):
        check_segmentation_dataset(cfg.train_dataloader.dataset, 150)
    (scenes / 'annotations/validation/1.png').unlink()
    both = dict(type='ConcatDataset', datasets=[cfg.train_dataloader.dataset, cfg.val_dataloader.dataset])
    wrapped = Config(dict(model=cfg.model, train_dataloader=dict(
        dataset=dict(type='RepeatDataset', times=2, dataset=both))))
    with pytest.raises(UserInputError, match=r'^train_dataloader\.dataset\.dataset\.datasets\.1: 1 of 2 images'):
        check_segmentation_config(wrapped)
    with pytest.raises(UserInputError, match=r'^val_dataloader\.dataset: 1 of 2 images have no annotation'):
        check_segmentation_config(cfg)
    cfg.val_dataloader.dataset.data_root = str(tmp_path / 'nowhere')
    with pytest.raises(UserInputError, match='val_dataloader.dataset: .*nowhere'):
        check_segmentation_config(cfg)


def test_ade20k_itself_is_read_as_its_config_says(tmp_path, mmseg):
    """150 classes from 1 to 150, with 0 for what is not scored."""
    root = write_scenes(tmp_path / 'ade', classes=150)
    cfg = Config.fromfile(CONFIGS[0])
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[loader].dataset.data_root = str(root)
    check_segmentation_config(cfg)
    with DefaultScope.overwrite_default_scope('mmseg'):
        dataset = DATASETS.build(dict(cfg.val_dataloader.dataset))
        labels = dataset[0]['data_samples'].gt_sem_seg.data
    assert labels.max() == 255 and 149 in labels and 150 not in labels
