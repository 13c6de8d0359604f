"""A run that was interrupted and resumed is the uninterrupted one, bit by bit."""
import copy

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from PIL import Image

from mimhd_mm.datasets.seeded_samples import PositionedSampler, SampleKey, SeededDataset, mixed_seed
from mimhd_mm.engine.hooks import INTERRUPTED_STATUS

from ..conftest import DECODER, SIZE, STUDENT, TEACHER, mimhd_cfg
from .runs import equal, read, settings, state_of, train

EPOCHS = dict(type='EpochBasedTrainLoop', max_epochs=3)  # of 6 batches
ITERATIONS = dict(type='IterBasedTrainLoop', max_iters=18)


def mae() -> dict:
    return dict(
        type='MAE', backbone=dict(type='MAEViT', arch=STUDENT, mask_ratio=0.75, **SIZE),
        neck=dict(type='MAEPretrainDecoder', num_patches=16, patch_size=8, embed_dim=24, **DECODER),
        head=dict(type='MAEPretrainHead', norm_pix=True, patch_size=8,
                  loss=dict(type='PixelReconstructionLoss', criterion='L2')))


def mimhd(teacher_file) -> dict:
    """With drop path, which draws, beside the masks."""
    return mimhd_cfg(teacher_file, backbone=dict(drop_path_rate=0.2))


def tinymim(teacher_file) -> dict:
    return dict(
        type='mimhd_mm.TinyMIM', backbone=dict(type='RelationViT', arch=STUDENT, relation_heads=4, **SIZE),
        target_generator=dict(type='MAETeacher', checkpoint=str(teacher_file), arch=TEACHER, block=3, **SIZE),
        head=dict(type='RelationDistillHead', matcher=dict(type='OneToOneHeadMatcher')))


@pytest.fixture(scope='module')
def by_epochs(image_folder, teacher_file, tmp_path_factory):
    """Settings of MIM-HD, and a run of them that was left alone."""
    config = settings(mimhd(teacher_file), image_folder, EPOCHS)
    return config, train(config, tmp_path_factory.mktemp('by_epochs') / 'whole')


def check(config, tmp_path, stop_at, left_alone=None):
    """Interrupt a run, resume it, and compare it with one that was left alone."""
    whole, expected, status = left_alone or train(config, tmp_path / 'whole')
    assert status is None and len(expected.steps) == 18
    assert len({step[0] for step in expected.steps.values()}) == 18  # no batch is seen twice
    _, first, status = train(config, tmp_path / 'cut', stop_at)
    assert status == INTERRUPTED_STATUS and max(first.steps) == stop_at - 1
    resumed, second, status = train(config, tmp_path / 'cut', resume=True)
    assert status is None and min(second.steps) == stop_at
    assert {**first.steps, **second.steps} == expected.steps
    assert {**first.places, **second.places} == expected.places
    assert equal(state_of(whole), state_of(resumed))
    return whole, resumed


@pytest.mark.slow
@pytest.mark.parametrize('stop_at', [6, 10])
def test_mimhd_by_epochs(tmp_path, by_epochs, stop_at):
    """At the end of an epoch and in the middle of one; images, losses, W, weights, optimiser, schedules."""
    config, left_alone = by_epochs
    check(config, tmp_path, stop_at, left_alone)


@pytest.mark.slow
def test_mimhd_by_iterations(tmp_path, image_folder, teacher_file):
    check(settings(mimhd(teacher_file), image_folder, ITERATIONS), tmp_path, 8)


@pytest.mark.slow
def test_iterations_over_a_sampler_that_ends(tmp_path, image_folder):
    config = settings(mae(), image_folder, ITERATIONS)
    config['train_dataloader']['sampler'] = dict(type='DefaultSampler', shuffle=True)
    check(config, tmp_path, 8)


@pytest.mark.slow
@pytest.mark.parametrize('workers, persistent', [(1, False), (2, True)])
def test_with_workers(tmp_path, by_epochs, workers, persistent):
    """Also the same as without any, and each epoch has augmentations of its own."""
    config, (alone, _, _) = by_epochs
    config = copy.deepcopy(config)
    config['train_dataloader'].update(num_workers=workers, persistent_workers=persistent)
    whole, _ = check(config, tmp_path, 9)
    assert equal(state_of(whole), state_of(alone))


@pytest.mark.slow
def test_mae_with_accumulated_gradients(tmp_path, image_folder):
    """The checkpoint falls between two steps of the optimiser: what was accumulated is in it."""
    config = settings(mae(), image_folder, EPOCHS)
    config['optim_wrapper']['accumulative_counts'] = 4
    check(config, tmp_path, 7)


@pytest.mark.slow
def test_tinymim_from_a_checkpoint_by_iteration(tmp_path, image_folder, teacher_file):
    """mmengine's by_epoch=False in a run of epochs, resumed from a file that is named."""
    config = settings(tinymim(teacher_file), image_folder, EPOCHS)
    config['find_unused_parameters'] = True
    whole, expected, _ = train(config, tmp_path / 'whole', default_hooks=dict(
        checkpoint=dict(type='mimhd_mm.SafeCheckpointHook', by_epoch=False, interval=4)))
    for iteration in (4, 12):  # in the middle of an epoch; at its end, before the hooks that follow one
        resumed, seen, _ = train(config, tmp_path / f'from{iteration}', resume=True,
                                 load_from=str(tmp_path / 'whole' / f'iter_{iteration}.pth'))
        assert seen.steps == {key: value for key, value in expected.steps.items() if key >= iteration}
        assert equal(state_of(whole), state_of(resumed))


@pytest.mark.slow
def test_classification_with_mixup(tmp_path, image_folder):
    """Draws in the preprocessor, in the process itself; evaluations in between."""
    model = dict(
        type='ImageClassifier', backbone=dict(type='VisionTransformer', arch=STUDENT, out_type='avg_featmap', **SIZE),
        head=dict(type='LinearClsHead', num_classes=2, in_channels=24,
                  loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')),
        train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]))
    config = settings(model, image_folder, EPOCHS, data_preprocessor=dict(type='ClsDataPreprocessor', num_classes=2))
    config['train_dataloader']['dataset']['with_label'] = True
    plain = dict(config['train_dataloader']['dataset'], pipeline=[dict(type='LoadImageFromFile'), dict(
        type='PackInputs')])
    config.update(val_cfg=dict(), val_evaluator=dict(type='Accuracy'), val_dataloader=dict(
        batch_size=16, num_workers=0, dataset=plain, sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate')))
    check(config, tmp_path, 9)


@pytest.mark.slow
def test_segmentation(tmp_path):
    """UperNet of mmsegmentation, by iterations."""
    pytest.importorskip('mmseg')
    rng = np.random.default_rng(0)
    for folder, mode, high in (('images', 'RGB', 256), ('labels', 'L', 3)):
        (tmp_path / folder).mkdir()
        for number in range(8):
            shape = (48, 48, 3) if mode == 'RGB' else (48, 48)
            Image.fromarray(rng.integers(0, high, shape, dtype=np.uint8), mode).save(
                tmp_path / folder / f'{number}.png')
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
                dict(type='RandomCrop', crop_size=(32, 32)), dict(type='RandomFlip', prob=0.5),
                dict(type='PhotoMetricDistortion'), dict(type='PackSegInputs')]
    head = dict(num_classes=3, norm_cfg=dict(type='BN'), channels=8, dropout_ratio=0.1, align_corners=False)
    model = dict(
        type='EncoderDecoder', data_preprocessor=dict(type='SegDataPreProcessor', size=(32, 32)),
        backbone=dict(type='mmpretrain.VisionTransformer', arch=dict(STUDENT, num_layers=4), out_type='featmap',
                      out_indices=[0, 1, 2, 3], **SIZE),
        neck=dict(type='Feature2Pyramid', embed_dim=24, rescales=[4, 2, 1, 0.5], norm_cfg=dict(type='BN')),
        decode_head=dict(type='UPerHead', in_channels=[24] * 4, in_index=[0, 1, 2, 3], pool_scales=(1, 2), **head),
        train_cfg=dict(), test_cfg=dict(mode='whole'))
    config = settings(model, tmp_path, ITERATIONS, default_scope='mmseg', data_preprocessor=None)
    config['train_dataloader'] = dict(
        batch_size=2, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=True),
        dataset=dict(type='BaseSegDataset', data_root=str(tmp_path), pipeline=pipeline, img_suffix='.png',
                     metainfo=dict(classes=('a', 'b', 'c')),
                     data_prefix=dict(img_path='images', seg_map_path='labels')))
    init_default_scope('mmseg')
    check(config, tmp_path, 8)


def test_the_seed_and_the_order_come_from_the_checkpoint(tmp_path, image_folder):
    """Also where the config leaves the seed open; reading it back executes nothing."""
    config = settings(mae(), image_folder, EPOCHS, randomness=dict(seed=None))
    first, seen, _ = train(config, tmp_path / 'run', stop_at=4)
    saved = read(tmp_path / 'run' / 'interrupted_iter_4.pth')['exact_resume']
    assert saved['batch'] == 4 and saved['epoch'] == 0 and len(saved['ranks']) == 1
    second, _, _ = train(config, tmp_path / 'run', resume=True)
    loader = second.train_loop.dataloader
    assert loader.sampler.seed == first.train_loop.dataloader.sampler.seed
    assert loader.dataset.seed == first.train_loop.dataloader.dataset.seed == saved['seed']


def test_another_batch_size_is_said(tmp_path, image_folder):
    """Training goes on at the beginning of the epoch, with a warning."""
    config = settings(mae(), image_folder, EPOCHS)
    train(config, tmp_path / 'run', stop_at=4)
    config['train_dataloader']['batch_size'] = 4
    runner, seen, _ = train(config, tmp_path / 'run', resume=True)
    log = ''.join(path.read_text() for path in (tmp_path / 'run').glob('*/*.log'))
    assert 'another batch size 5, now 4; number of batches 6, now 8' in log
    assert seen.places[4] == (0, 0) and runner.iter == 4 + 3 * 8


def test_samples_depend_on_seed_epoch_and_index_alone():
    class Draws(torch.utils.data.Dataset):
        metainfo = dict(classes=('a', ))

        def __len__(self):
            return 10

        def __getitem__(self, index):
            return index, np.random.rand(), torch.rand(()).item()

    dataset = SeededDataset(Draws(), seed=3)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    sample = dataset[SampleKey(2, 7)]
    assert torch.equal(before, torch.get_rng_state())
    dataset[SampleKey(1, 0)]
    assert dataset[SampleKey(2, 7)] == sample and sample[0] == 2 and dataset.metainfo == dict(classes=('a', ))
    others = [dataset[SampleKey(2, 8)], dataset[SampleKey(3, 7)], SeededDataset(Draws(), seed=4)[SampleKey(2, 7)]]
    assert all(other[1] != sample[1] and other[2] != sample[2] for other in others)
    assert len({mixed_seed(a, b) for a in range(100) for b in range(100)}) == 100 * 100


@pytest.mark.parametrize('kind', ['DefaultSampler', 'InfiniteSampler'])
def test_an_order_begins_anywhere(kind):
    sampler = PositionedSampler(dict(type=kind, shuffle=True), dataset=list(range(10)), seed=1)
    sampler.set_epoch(0)
    whole = [key for key, _ in zip(sampler, range(25))]
    assert sorted(key.index for key in whole[:10]) == list(range(10)) and len(sampler) == 10
    sampler.start_at(7)
    later = [key for key, _ in zip(sampler, range(18))]
    if kind == 'DefaultSampler':
        assert len(whole) == 10 and later == whole[7:] and {key.epoch for key in whole} == {0}
        sampler.set_epoch(1)
        following = list(sampler)
        assert [key.index for key in following] != [key.index for key in whole]
        assert {key.epoch for key in following} == {1}
    else:
        assert later == whole[7:] and [key.epoch for key in whole] == [0] * 10 + [1] * 10 + [2] * 5
