"""Fine-tuning and linear probes: every config starts from a student, takes a step and is what its name says."""
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

from mimhd_mm.engine.loading import build_model
from mimhd_mm.engine.preflight.pretrained import check_class_count, check_pretrained
from mimhd_mm.errors import UserInputError
from mimhd_mm.models import RelationViT
from mimhd_mm.registry import DATASETS, MODELS
from mimhd_mm.weights.reading import read_tensors

from ..conftest import SIZE, STUDENT, mimhd_cfg
from ..conftest import read_config as read
from ..test_tools.commands import call

ROOT = Path(__file__).parents[2]
FINETUNE = sorted((ROOT / 'configs' / 'finetune').rglob('*.py'))
MINI = ROOT / 'configs/finetune/mini/vit-micro-p8_mimhd-5e-pre_1xb64-coslr-10e_tiny-imagenet-64px.py'
each_config = pytest.mark.parametrize('path', FINETUNE, ids=lambda path: path.stem)


@pytest.fixture(scope='module')
def student_file(teacher_file, tmp_path_factory):
    """A checkpoint of a tiny MIM-HD run, as the Runner writes it."""
    init_default_scope('mmpretrain')
    torch.manual_seed(3)
    model = MODELS.build(mimhd_cfg(teacher_file))
    model.init_weights()
    for parameter in model.backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    path = tmp_path_factory.mktemp('student') / 'epoch_1.pth'
    torch.save(dict(state_dict=model.state_dict(), meta=dict(epoch=1)), path)
    return path


@pytest.fixture(scope='module')
def labelled(image_folder, tmp_path_factory):
    """The two classes of images in Tiny ImageNet's layout."""
    root = tmp_path_factory.mktemp('labelled')
    for split in ('train', 'val'):
        shutil.copytree(image_folder, root / split)
    return root


def shrink(cfg: Config, student_file) -> Config:
    """The same config for the tiny student."""
    backbone = cfg.model.backbone
    if isinstance(backbone.arch, dict):
        backbone.pop('arch')
    backbone.update(arch=dict(STUDENT), **SIZE)
    if backbone.get('layer_cfgs'):  # TinyMIM's last block; 4 heads for 16
        backbone.layer_cfgs = [dict()] * (STUDENT['num_layers'] - 1) + [dict(num_heads=4)]
    if backbone.get('frozen_stages'):
        backbone.frozen_stages = STUDENT['num_layers']
    if backbone.init_cfg:
        backbone.init_cfg.checkpoint = str(student_file)
    cfg.model.head.in_channels = STUDENT['embed_dims']
    if cfg.model.get('neck'):
        cfg.model.neck.input_features = STUDENT['embed_dims']
    cfg.optim_wrapper.type = 'OptimWrapper'  # the mixed precision of the full sizes needs a GPU
    for key in ('loss_scale', 'dtype'):
        cfg.optim_wrapper.pop(key, None)
    return cfg


def batch_of(dataset, number=4) -> dict:
    return default_collate([dataset[index] for index in range(0, len(dataset), len(dataset) // number)])


@each_config
def test_starts_from_the_student_and_takes_a_step(path, student_file, labelled):
    """Through the config's own pipeline, batch augmentation, optimiser and layer-wise decay."""
    cfg = shrink(read(path), student_file)
    init_default_scope(cfg.default_scope)
    check_pretrained(cfg)
    model = build_model(cfg)
    model.init_weights()

    tensors = {key[len('backbone.'):]: value for key, value in read_tensors(student_file).items()
               if key.startswith('backbone.')}
    own = model.backbone.state_dict()
    if cfg.model.backbone.init_cfg:
        assert set(own) - set(tensors) == {'ln2.weight', 'ln2.bias'}
        assert set(tensors) - set(own) <= {'ln1.weight', 'ln1.bias'}
        assert all(torch.equal(own[key], tensors[key]) for key in set(own) & set(tensors))
    else:
        assert not torch.equal(own['layers.0.attn.qkv.weight'], tensors['layers.0.attn.qkv.weight'])

    pipeline = [dict(step, **{key: 32 if key != 'scale' or step.type != 'Resize' else (32, 32)
                              for key in ('scale', 'crop_size') if key in step})
                for step in cfg.train_dataloader.dataset.pipeline]
    dataset = DATASETS.build(dict(type='TinyImageNet', data_root=str(labelled), pipeline=pipeline))
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = model.data_preprocessor(batch_of(dataset), training=True)
    loss = model(**data, mode='loss')['loss']
    optim_wrapper.backward(loss)
    optim_wrapper.step()
    assert torch.isfinite(loss)

    expected = {'head'} if 'linear' in path.stem else {'backbone', 'head'}
    parameters = dict(model.named_parameters())
    assert {name.split('.')[0] for name, value in parameters.items() if value.grad is not None} == expected
    changed = {name.split('.')[0] for name, value in parameters.items() if not torch.equal(value, before[name])}
    assert changed == expected


@each_config
def test_evaluates(path, student_file, labelled):
    """Through the config's own validation pipeline and evaluator."""
    from mmengine.evaluator import Evaluator
    cfg = shrink(read(path), student_file)
    assert cfg.test_dataloader == cfg.val_dataloader and cfg.test_evaluator == cfg.val_evaluator
    dataset = DATASETS.build(dict(type='TinyImageNet', data_root=str(labelled), split='val',
                                  pipeline=cfg.val_dataloader.dataset.pipeline))
    model = build_model(cfg)
    model.eval()
    data = batch_of(dataset)
    assert data['inputs'].shape[-2:] == (64, 64) if '-64px' in path.stem else (224, 224)
    evaluator = Evaluator(cfg.val_evaluator)
    evaluator.process(data_samples=model.test_step(data), data_batch=data)
    assert cfg.default_hooks.checkpoint.save_best in evaluator.evaluate(4)


@each_config
def test_name_agrees_with_content(path):
    cfg = read(path)
    backbone, head, data = cfg.model.backbone, cfg.model.head, cfg.train_dataloader
    size, patch = re.match(r'vit-(\w+)-p(\d+)_', path.stem).groups()
    widths = {'base': ('base', 768), 'small': ('deit-small', 384), 'tiny': ('deit-tiny', 192), 'micro': (None, 96)}
    arch, width = widths[size]
    assert backbone.type == 'VisionTransformer' and backbone.patch_size == int(patch)
    assert backbone.arch == arch if arch else backbone.arch.embed_dims == width
    assert head.in_channels == width and cfg.model.get('neck', {}).get('input_features', width) == width

    gpus, batch = map(int, re.search(r'_(\d+)xb(\d+)-', path.stem).groups())
    assert data.batch_size == batch and cfg.auto_scale_lr.base_batch_size == gpus * batch
    assert ('-amp-' in path.stem) == (cfg.optim_wrapper.type == 'GuardedAmpOptimWrapper')
    epochs = int(re.search(r'coslr-(\d+)e_', path.stem).group(1))
    warmup, cosine = cfg.param_scheduler
    assert cfg.train_cfg.max_epochs == cosine.end == epochs and cosine.type == 'CosineAnnealingLR'
    assert warmup.end == cosine.begin and cosine.T_max == cosine.end - cosine.begin

    pixels = re.search(r'-(\d+)px', path.stem)
    pixels = int(pixels.group(1)) if pixels else 224
    crop = next(step.scale for step in data.dataset.pipeline if step.type == 'RandomResizedCrop')
    assert backbone.img_size == crop == pixels
    kind, classes = ('ImageNet', 1000) if 'in1k' in path.stem else ('TinyImageNet', 200)
    assert {cfg[name].dataset.type for name in ('train_dataloader', 'val_dataloader', 'test_dataloader')} == {kind}
    assert head.num_classes == cfg.data_preprocessor.num_classes == classes
    assert [cfg[f'{name}_dataloader'].dataset.split for name in ('train', 'val', 'test')] == ['train', 'val', 'val']

    linear = '-linear-' in path.stem
    assert (backbone.get('frozen_stages', -1) > 0) == linear == backbone.final_norm
    assert (cfg.optim_wrapper.get('constructor') == 'BackboneLayerDecayConstructor') != linear
    if linear:
        assert backbone.frozen_stages == (8 if size == 'micro' else 12) and cfg.model.neck.type == 'ClsBatchNormNeck'
    assert data.persistent_workers and data.num_workers > 0  # else every epoch draws the same augmentations


@each_config
def test_starts_from_what_the_name_says(path):
    backbone = read(path).model.backbone
    pretrained = re.search(r'_(mimhd|tinymim|dmae|mae)-(\d+)e-pre_', path.stem)
    assert bool(pretrained) == bool(backbone.init_cfg)
    if not pretrained:
        return
    algorithm, epochs = pretrained.groups()
    run, name = Path(backbone.init_cfg.checkpoint).parts[-2:]
    if algorithm == 'mae':
        assert name.startswith('mae_vit-base-p16_') and f'-{epochs}e_' in name
        return
    source = next((ROOT / 'configs' / 'pretrain').rglob(f'{run}.py'))
    student = read(source)
    assert student.model.type.lower() == algorithm and name == f'epoch_{epochs}.pth'
    assert student.train_cfg.max_epochs == int(epochs)
    assert {key: student.model.backbone[key] for key in ('arch', 'img_size', 'patch_size')} == {
        key: backbone[key] for key in ('arch', 'img_size', 'patch_size')}
    assert student.train_dataloader.dataset.type == read(path).train_dataloader.dataset.type
    assert heads_of(backbone) == heads_of(student.model.backbone)  # TinyMIM's last block has its teacher's


def heads_of(backbone) -> list:
    """Head count of each block by a config; nothing in a checkpoint's shapes would tell that it was lost."""
    heads = RelationViT.settings_of(backbone.arch)
    heads = [heads['num_heads']] * heads['num_layers']
    for block, layer_cfg in enumerate(backbone.get('layer_cfgs', [])):
        heads[block] = layer_cfg.get('num_heads', heads[block])
    if backbone.get('relation_heads'):
        heads[-1] = backbone.relation_heads
    return heads


def test_heads_of_tinymim_students():
    def heads(name):
        return heads_of(read(ROOT / 'configs' / 'finetune' / name).model.backbone)
    assert heads('vit-base-p16_tinymim-300e-pre_8xb128-amp-coslr-100e_in1k.py') == [12] * 11 + [16]
    assert heads('vit-tiny-p16_tinymim-300e-pre_8xb2048-amp-linear-coslr-90e_in1k.py') == [3] * 11 + [16]
    assert heads('vit-base-p16_mimhd-100e-pre_8xb128-amp-coslr-100e_in1k.py') == [12] * 12


@each_config
def test_header_is_a_contract(path):
    header = path.read_text().split('_base_')[0]
    command = re.search(r'Command: .*?(configs/\S+\.py)', header).group(1)
    assert ROOT / command == path
    assert 'Time: ' in header and 'Result: ' in header


def mini(student_file, **changes) -> Config:
    cfg = shrink(read(MINI), student_file)
    cfg.merge_from_dict(changes)
    return cfg


def refusal(check, cfg) -> str:
    with pytest.raises(UserInputError) as caught:
        check(cfg)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_student_of_another_size_is_refused(student_file):
    wide = refusal(check_pretrained, mini(student_file, **{'model.backbone.arch.embed_dims': 48}))
    assert '(1, 1, 24)' in wide and '(1, 1, 48)' in wide
    deep = refusal(check_pretrained, mini(student_file, **{'model.backbone.arch.num_layers': 4}))
    assert "lacks 'layers.3." in deep
    shallow = refusal(check_pretrained, mini(student_file, **{'model.backbone.arch.num_layers': 2}))
    assert "unknown 'layers.2." in shallow
    patches = refusal(check_pretrained, mini(student_file, **{'model.backbone.patch_size': 4}))
    assert 'patch_embed.projection.weight' in patches


def test_student_of_another_image_size_is_welcome(student_file):
    cfg = mini(student_file, **{'model.backbone.img_size': 64})
    check_pretrained(cfg)
    model = build_model(cfg)
    model.init_weights()
    assert model.backbone.pos_embed.shape[1] == 65


def test_file_that_is_no_student_is_refused(tmp_path, student_file):
    tensors = read_tensors(student_file)
    bare = tmp_path / 'bare.pth'
    torch.save({key[len('backbone.'):]: value for key, value in tensors.items() if key.startswith('backbone.')}, bare)
    option = 'model.backbone.init_cfg.checkpoint'
    assert "under 'backbone.'" in refusal(check_pretrained, mini(student_file, **{option: str(bare)}))
    assert option in refusal(check_pretrained, mini(student_file, **{option: str(tmp_path / 'nothing.pth')}))
    assert option in refusal(check_pretrained, mini(student_file, **{option: ''}))
    torch.save({key: value for key, value in tensors.items() if key != 'backbone.ln1.weight'}, tmp_path / 'cut.pth')
    linear = mini(student_file, **{option: str(tmp_path / 'cut.pth'), 'model.backbone.final_norm': True})
    assert "lacks 'ln1.weight'" in refusal(check_pretrained, linear)


def test_what_does_not_start_from_a_file_is_left_alone(student_file):
    option = 'model.backbone.init_cfg.checkpoint'
    check_pretrained(mini(student_file, **{option: 'nothing.pth', 'train_cfg': None}))  # as tools/test.py
    check_pretrained(mini(student_file, **{option: 'scheme://host/file.pth'}))
    check_pretrained(mini(student_file, **{'model.backbone.init_cfg': None}))
    check_pretrained(read(next((ROOT / 'configs' / 'pretrain' / 'mini').glob('mae_*.py'))))


def test_class_count_of_the_data(student_file, labelled):
    roots = {f'{name}_dataloader.dataset.data_root': str(labelled) for name in ('train', 'val', 'test')}
    message = refusal(check_class_count, mini(student_file, **roots))
    options = re.search(r'--cfg-options (.*)\.$', message).group(1).split()
    assert 'has 2 classes' in message and len(options) == 2
    right = mini(student_file, **roots, **{key: int(value) for key, value in (o.split('=') for o in options)})
    check_class_count(right)
    right.data_preprocessor.num_classes = 3
    assert 'data_preprocessor.num_classes=3' in refusal(check_class_count, right)
    check_class_count(read(next((ROOT / 'configs' / 'pretrain' / 'mini').glob('mae_*.py'))))


@pytest.mark.slow
def test_from_the_command_line(student_file, labelled, tmp_path):
    """Small machines' options in a real run (scaled rate, gradient accumulation, activation checkpointing); a test."""
    arch = [f'model.backbone.arch.{key}={value}' for key, value in STUDENT.items()]
    options = [
        '--work-dir', tmp_path, '--no-pin-memory', '--cfg-options', *arch, 'model.backbone.img_size=32',
        'model.head.in_channels=24', 'model.head.num_classes=2', 'data_preprocessor.num_classes=2',
        *(f'{name}_dataloader.{key}' for name in ('train', 'val', 'test') for key in (
            'batch_size=8', 'num_workers=0', f'dataset.data_root={labelled}')), 'val_evaluator.topk=1',
        'test_evaluator.topk=1']
    train = ['train_cfg.max_epochs=1', 'param_scheduler=[]', 'optim_wrapper.accumulative_counts=2',
             'activation_checkpointing=[backbone.layers.0,backbone.layers.1,backbone.layers.2]',
             f'model.backbone.init_cfg.checkpoint={student_file}', 'default_hooks.logger.interval=1',
             'default_hooks.checkpoint.interval=1']
    call('train.py', MINI, '--auto-scale-lr', *options, *train)
    log = [json.loads(line) for line in next(tmp_path.rglob('scalars.json')).read_text().splitlines()]
    # batch 8 instead of 64, and the first group is [class], four steps of decay below the head
    assert log[0]['lr'] == pytest.approx(1e-3 * 8 / 64 * .75 ** 4)
    accuracy = next(line['accuracy/top1'] for line in log if 'accuracy/top1' in line)
    best = next(tmp_path.glob('best_accuracy_top1_epoch_1.pth'))

    # the checkpoint is enough: the student's file may be gone
    call('test.py', MINI, best, *options, '--out', tmp_path / 'metrics.json', '--out-item', 'metrics')
    assert json.loads((tmp_path / 'metrics.json').read_text())['accuracy/top1'] == pytest.approx(accuracy)


def test_images_of_other_sizes(student_file):
    """Not square and not of the size the student has seen: positions are interpolated, when built and when called."""
    cfg = mini(student_file)
    cfg.model.backbone.img_size = (32, 48)
    check_pretrained(cfg)
    model = build_model(cfg)
    model.init_weights()
    assert model.backbone.pos_embed.shape[1] == 1 + 4 * 6
    for height, width in ((32, 48), (48, 32), (64, 64), (40, 24)):
        images = torch.randn(2, 3, height, width)
        scores = model(images, mode='tensor')
        assert scores.shape == (2, 200) and torch.isfinite(scores).all()
