"""Augmentation of batches: mmpretrain's distributions, Pillow's pixels, and nothing in evaluation."""
import math
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.datasets.transforms import ColorJitter, RandomResizedCrop
from mmpretrain.models import SelfSupDataPreprocessor

from mimhd_mm.datasets.image_packing import pack_images
from mimhd_mm.errors import UserInputError
from mimhd_mm.models import DeviceAugmentation
from mimhd_mm.models.data_preprocessors.batch_transforms import (
    crop_and_resize,
    draw_boxes,
    draw_jitter,
    flip,
    jitter_colors,
    resampling_weights,
)
from mimhd_mm.registry import MODELS

from ..conftest import mimhd_cfg, read_config

CONFIGS = Path(__file__).parents[2] / 'configs' / '_base_' / 'datasets'
CPU = torch.device('cpu')
NORMALISE = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
CROP = dict(scale=16, crop_ratio_range=(0.2, 1.0))
JITTER = dict(brightness=0.4, contrast=0.4, saturation=0.4)


def images(*shape: int, seed: int = 0) -> np.ndarray:
    """Noise with different means of its channels: no two grey levels, no two channels alike."""
    noise = np.random.default_rng(seed).integers(0, 256, (*shape, 3))
    return (noise * [0.9, 0.6, 0.4] + [0, 60, 150]).astype(np.uint8)


def to_batch(array: np.ndarray) -> torch.Tensor:
    """(B, H, W, 3) to (B, 3, H, W)."""
    return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous()


def same_distribution(first: np.ndarray, second: np.ndarray) -> bool:
    """Two samples pass Kolmogorov and Smirnov's test at 0.1 %."""
    points = np.sort(np.concatenate((first, second)))
    shares = [np.searchsorted(np.sort(sample), points, side='right') / len(sample) for sample in (first, second)]
    return np.abs(shares[0] - shares[1]).max() < 1.95 * math.sqrt(1 / len(first) + 1 / len(second))


def test_the_test_of_distributions_tells_them_apart():
    rng = np.random.default_rng(0)
    assert same_distribution(rng.uniform(0.6, 1.4, 3000), rng.uniform(0.6, 1.4, 3000))
    assert not same_distribution(rng.uniform(0.6, 1.4, 3000), rng.uniform(0.6, 1.3, 3000))


@pytest.mark.parametrize('height, width, ratio, attempts', [
    (64, 64, (0.2, 1.0), 10), (40, 90, (0.08, 1.0), 10),
    (20, 90, (0.5, 1.0), 10),  # nothing fits: the centre
    (90, 50, (0.3, 1.0), 1), (64, 48, (0.2, 1.0), 0)])
def test_boxes_are_distributed_as_mmpretrain_draws_them(height, width, ratio, attempts):
    reference = RandomResizedCrop(16, crop_ratio_range=ratio, max_attempts=attempts)
    np.random.seed(0)
    expected = np.array([reference.rand_crop_params(np.empty((height, width, 0))) for _ in range(3000)])
    boxes = draw_boxes(3000, (height, width), ratio, reference.aspect_ratio_range, attempts, CPU).double().numpy()
    assert (boxes == boxes.round()).all() and (boxes[:, :2] >= 0).all() and (boxes[:, 2:] > 0).all()
    assert (boxes[:, 0] + boxes[:, 2] <= height).all() and (boxes[:, 1] + boxes[:, 3] <= width).all()
    for column in range(4):
        assert same_distribution(boxes[:, column], expected[:, column])
    assert same_distribution(boxes[:, 2] * boxes[:, 3], expected[:, 2] * expected[:, 3])
    assert same_distribution(boxes[:, 3] / boxes[:, 2], expected[:, 3] / expected[:, 2])


def pillow_crop(image: np.ndarray, box: tuple, *sizes: tuple) -> np.ndarray:
    """mmpretrain's crop, and its resize in as many steps as there are (width, height)."""
    top, left, height, width = box
    image = mmcv.imcrop(image, np.array([left, top, left + width - 1, top + height - 1]))
    for size in sizes:
        image = mmcv.imresize(image, size, interpolation='bicubic', backend='pillow')
    return image


@pytest.mark.parametrize('box', [(0, 0, 48, 60), (5, 7, 24, 16), (40, 50, 8, 10), (0, 30, 48, 30), (11, 0, 37, 5),
                                 (47, 59, 1, 1)])
def test_crop_equals_mmpretrains(box):
    """Smaller, larger and as large, at the corners and inside, whatever lies beyond the box.

    Noise to one level if Pillow takes rows before columns, which it did up to version 12 and since then where it is the
    shorter way; smooth images to two levels in either order.
    """
    noise = images(1, 48, 60)
    smooth = pillow_crop(images(6, 8), (0, 0, 6, 8), (60, 48))
    ours = [crop_and_resize(to_batch(batch), torch.tensor([box]), (24, 16))[0].permute(1, 2, 0).numpy()
            for batch in (noise, smooth[None])]
    difference = np.abs(ours[0] - pillow_crop(noise[0], box, (16, box[2]), (16, 24)))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01
    assert np.abs(ours[1] - pillow_crop(smooth, box, (16, 24))).max() <= 2


def test_resampling_weights_sum_to_one_and_stay_inside():
    weights = resampling_weights(torch.tensor([3., 0.]), torch.tensor([9., 20.]), 20, 7)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 7), atol=1e-6)
    assert not weights[0, :, :3].any() and not weights[0, :, 12:].any() and weights[0, 0, 3] > 0


@pytest.mark.parametrize('magnitudes', [JITTER, dict(JITTER, contrast=0.), dict(brightness=(0.2, 3.), contrast=(0., 2.),
                                                                                 saturation=(0., 2.))])
def test_jitter_equals_mmpretrains_to_two_grey_levels(magnitudes):
    reference = ColorJitter(**magnitudes)
    batch = images(24, 20, 28)
    factors, orders, expected = [], [], []
    for seed, image in enumerate(batch):
        np.random.seed(seed)
        order, *values, _ = reference._rand_params()
        np.random.seed(seed)
        expected.append(reference.transform(dict(img=image))['img'])
        factors.append([1. if value is None else value for value in values])
        orders.append([index for index in order.tolist() if index < 3])
    out = jitter_colors(to_batch(batch), torch.tensor(factors), torch.tensor(orders))
    difference = (out - to_batch(np.stack(expected)).float()).abs()
    assert len({tuple(order) for order in orders}) == 6
    assert difference.max() <= 2 and (difference > 0).float().mean() < 0.01


def test_jitter_is_distributed_as_mmpretrain_draws_it():
    reference = ColorJitter(brightness=0.4, contrast=(0.5, 1.1), saturation=0.2)
    np.random.seed(0)
    drawn = [reference._rand_params() for _ in range(3000)]
    factors, order = draw_jitter(3000, reference.brightness, reference.contrast, reference.saturation, CPU)
    for column in range(3):
        assert same_distribution(factors[:, column].numpy(), np.array([sample[1 + column] for sample in drawn]))
    assert abs(np.corrcoef(factors.numpy().T) - np.eye(3)).max() < 0.08
    codes = (order * torch.tensor([100, 10, 1])).sum(1).numpy()
    theirs = np.array([int(''.join(str(index) for index in sample[0] if index < 3)) for sample in drawn])
    assert sorted(set(codes)) == sorted(set(theirs)) and same_distribution(codes, theirs)


def test_flip_is_exact():
    batch = to_batch(images(4, 6, 5))
    flipped = flip(batch, torch.tensor([True, False, True, False]))
    assert torch.equal(flipped[1::2], batch[1::2]) and torch.equal(flipped[::2], batch[::2].flip(-1))
    assert flipped.dtype == torch.uint8


def test_flip_probability():
    preprocess = DeviceAugmentation(flip_prob=0.3)
    batch = torch.zeros(4000, 3, 1, 2, dtype=torch.uint8)
    batch[..., 1] = 1
    assert abs(preprocess.augment(batch)[:, 0, 0, 0].float().mean() - 0.3) < 0.03


def test_evaluation_only_normalises():
    preprocess = DeviceAugmentation(crop=CROP, flip_prob=1., student_jitter=JITTER, **NORMALISE)
    data = dict(inputs=to_batch(images(2, 24, 24)), data_samples=None)
    state = torch.get_rng_state()
    assert torch.equal(preprocess(data)['inputs'], SelfSupDataPreprocessor(**NORMALISE)(data)['inputs'])
    assert torch.equal(torch.get_rng_state(), state)


def test_training_repeats_under_a_seed_and_keeps_labels():
    preprocess = DeviceAugmentation(crop=CROP, flip_prob=0.5, student_jitter=JITTER, non_blocking=True, **NORMALISE)
    data = dict(inputs=to_batch(images(8, 24, 32)), data_samples=['a sample'])
    before = data['inputs'].clone()

    def views(seed):
        torch.manual_seed(seed)
        out = preprocess(data, training=True)
        assert out['data_samples'] == ['a sample']
        return out['inputs']
    first, again, other = views(1), views(1), views(2)
    for view in range(2):
        assert first[view].shape == (8, 3, 16, 16) and first[view].dtype == torch.float32
        assert torch.equal(first[view], again[view]) and not torch.equal(first[view], other[view])
    assert torch.equal(data['inputs'], before)


def test_views_differ_in_colour_only():
    """The student's view is the first, as StudentColorJitter orders them; without a jitter the two are one."""
    data = dict(inputs=to_batch(images(6, 24, 24)), data_samples=None)
    kept = dict(brightness=(2., 2.), contrast=0., saturation=0.)
    student, teacher = DeviceAugmentation(crop=CROP, flip_prob=0.5, student_jitter=kept)(data, True)['inputs']
    assert torch.equal(student, (2 * teacher).clamp(max=255)) and not torch.equal(student, teacher)
    plain = DeviceAugmentation(**NORMALISE)(data, True)['inputs']
    assert torch.equal(plain, SelfSupDataPreprocessor(**NORMALISE)(data)['inputs'])


def test_autocast_does_not_change_pixels():
    """mmengine preprocesses inside the autocast of training."""
    data = dict(inputs=to_batch(images(4, 24, 24)), data_samples=None)
    preprocess = DeviceAugmentation(crop=CROP, student_jitter=JITTER)
    torch.manual_seed(3)
    expected = preprocess(data, True)['inputs']
    torch.manual_seed(3)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        inside = preprocess(data, True)['inputs']
    assert all(torch.equal(*pair) for pair in zip(expected, inside))


def test_waits_for_no_number():
    """A tensor on the meta device has no numbers: whatever would bring one to the host fails there."""
    preprocess = DeviceAugmentation(crop=CROP, flip_prob=0.5, student_jitter=JITTER)
    out = preprocess.augment(torch.zeros(2, 3, 24, 24, dtype=torch.uint8, device='meta'))
    assert [view.shape for view in out] == [(2, 3, 16, 16)] * 2


@pytest.mark.parametrize('settings, message', [
    (dict(flip_prob=1.5), 'flip_prob'), (dict(student_jitter=dict(brightness=0.4, hue=0.1)), 'hue')])
def test_wrong_settings(settings, message):
    with pytest.raises(UserInputError, match=message):
        DeviceAugmentation(**settings)


@pytest.mark.parametrize('inputs, message', [
    ([torch.zeros(2, 3, 8, 8, dtype=torch.uint8)] * 2, 'StudentColorJitter'),
    (torch.zeros(2, 3, 8, 8), 'float32'), (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), '1, 8, 8')])
def test_wrong_batches(inputs, message):
    with pytest.raises(UserInputError, match=message):
        DeviceAugmentation(flip_prob=0.5)(dict(inputs=inputs, data_samples=None), True)


@pytest.mark.parametrize('name', ['imagenet_device_224px', 'tiny-imagenet_packed_64px'])
def test_base_configs_build_the_preprocessor(name):
    cfg = read_config(CONFIGS / f'{name}.py')
    preprocess = MODELS.build(cfg.data_preprocessor)
    assert isinstance(preprocess, DeviceAugmentation) and preprocess._enable_normalize and preprocess.flip_prob == 0.5
    assert cfg.train_dataloader.persistent_workers and cfg.train_dataloader.prefetch_factor
    batch = to_batch(images(1, 64, 64))
    assert preprocess(dict(inputs=batch, data_samples=None), True)['inputs'].shape == (1, 3, 64, 64)


def run_config(folder, model):
    return Config(dict(
        model=dict(model, data_preprocessor=dict(
            type='DeviceAugmentation', crop=dict(scale=32, crop_ratio_range=(0.2, 1.0)), flip_prob=0.5,
            student_jitter=JITTER, non_blocking=True, **NORMALISE)),
        train_dataloader=dict(
            batch_size=8, num_workers=1, persistent_workers=True, prefetch_factor=2,
            sampler=dict(type='DefaultSampler', shuffle=True), collate_fn=dict(type='default_collate'),
            dataset=dict(type='PackedImages', file=str(folder / 'images.safetensors'), with_label=False,
                         pipeline=[dict(type='PackInputs')])),
        train_cfg=dict(by_epoch=False, max_iters=2), optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2)),
        default_scope='mmpretrain', log_level='ERROR', work_dir=str(folder / 'work')))


def test_mimhd_trains_on_packed_images(tmp_path, image_folder, teacher_file):
    """Two iterations by mmengine's Runner, with two views, workers and a checkpoint."""
    pack_images(image_folder, tmp_path / 'images.safetensors')
    runner = Runner.from_cfg(run_config(tmp_path, mimhd_cfg(teacher_file)))
    runner.train()
    history = runner.message_hub.log_scalars
    assert runner.iter == 2
    for key in ('train/loss_qk', 'train/loss_vv', 'train/loss_rec'):
        values = history[key].data[0]
        assert len(values) == 2 and np.isfinite(values).all()
    assert (tmp_path / 'work' / 'iter_2.pth').is_file()
