"""Ridge regression in closed form, and frozen features by block."""
import numpy as np
import pytest
import torch
from mmpretrain.models import MAEViT, SelfSupDataPreprocessor, VisionTransformer
from mmpretrain.structures import DataSample

from mimhd_mm.errors import UserInputError
from mimhd_mm.evaluation import block_features, ridge_accuracy
from mimhd_mm.evaluation.ridge import RidgeSums, choose_and_fit, predict

from ..conftest import SIZE, STUDENT


def problem(n=200, m=150, dims=12, classes=5, noise=2., seed=0):
    """Clouds around one point a class; noise makes it hard."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dims, generator=generator)
    labels = torch.randint(classes, (n + m, ), generator=generator)
    features = 3 + 5 * (centres[labels] + noise * torch.randn(n + m, dims, generator=generator))
    return features[:n], labels[:n], features[n:], labels[n:]


def slow_fit(x, y, penalty):
    """Least squares with the penalty as further rows; features standardised, targets centred."""
    mean, std = x.mean(0), x.std(0)
    z = (x - mean) / std
    rows = np.concatenate([z, np.sqrt(len(x) * penalty) * np.eye(x.shape[1])])
    targets = np.concatenate([y - y.mean(0), np.zeros((x.shape[1], y.shape[1]))])
    weight = np.linalg.lstsq(rows, targets, rcond=None)[0]
    return lambda other: (other - mean) / std @ weight + y.mean(0)


def slow_accuracy(train, train_labels, test, test_labels, classes, penalties):
    x, y = train.double().numpy(), np.eye(classes)[train_labels.numpy()]
    order = sorted(range(len(x)), key=lambda i: (int(train_labels[i]), i))
    held = [i for place, i in enumerate(order) if place % 10 == 0]
    kept = [i for place, i in enumerate(order) if place % 10 != 0]
    best = min(penalties, key=lambda p: ((slow_fit(x[kept], y[kept], p)(x[held]) - y[held]) ** 2).sum())
    scores = slow_fit(x, y, best)(test.double().numpy())
    return 100 * np.mean(scores.argmax(1) == test_labels.numpy()), best


def sums_of(x, y):
    sums = RidgeSums(x.shape[1], y.shape[1])
    for part in range(3):  # in any parts
        sums.add(x[part::3], y[part::3])
    return sums


@pytest.mark.parametrize('penalty', [1e-6, 0.1, 10.])
def test_fit_is_least_squares_with_a_penalty(penalty):
    generator = torch.Generator().manual_seed(0)
    x = 3 + torch.randn(40, 6, generator=generator).double() * torch.tensor([1., 10, 0.1, 1, 1e3, 1])
    y = torch.randn(40, 2, generator=generator).double()
    weight = sums_of(x, y).fit([0.5, penalty])[1]
    expected = slow_fit(x.numpy(), y.numpy(), penalty)(x.numpy())
    np.testing.assert_allclose(predict(weight, x).numpy(), expected, atol=1e-9)


def test_errors_are_those_of_the_predictions():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 4, generator=generator) + 2, torch.randn(30, 3, generator=generator)
    weights = torch.randn(2, 5, 3, generator=generator).double()
    expected = [(predict(weight, x) - y).square().sum(1).mean() for weight in weights]
    torch.testing.assert_close(sums_of(x, y).errors(weights), torch.stack(expected))


@pytest.mark.parametrize('seed', range(3))
def test_accuracy_equals_the_slow_version(seed):
    penalties = (1e-4, 1e-2, 0.3, 3.)
    data = problem(seed=seed)
    expected, _ = slow_accuracy(*data, 5, penalties)
    assert ridge_accuracy(*data, num_classes=5, penalties=penalties) == pytest.approx(expected)
    assert 25 < expected < 95  # neither chance nor everything, so that equality says something


def test_the_penalty_matters_and_is_chosen():
    """Few images, many features: without a penalty the fit is worthless."""
    data = problem(n=66, m=600, dims=60, noise=2.5)
    small, chosen = (ridge_accuracy(*data, num_classes=5, penalties=penalties) for penalties in ((1e-9, ), (1e-9, 1.)))
    expected, best = slow_accuracy(*data, 5, (1e-9, 1.))
    assert best == 1. and chosen == pytest.approx(expected) and chosen > small + 5


def test_separable_classes_give_100_and_wrong_labels_0():
    train, labels, test, test_labels = problem(noise=0.01)
    assert ridge_accuracy(train, labels, test, test_labels, num_classes=5) == 100
    assert ridge_accuracy(train, labels, test, (test_labels + 1) % 5, num_classes=5) == 0


def test_units_constant_features_and_order_do_not_matter():
    train, labels, test, test_labels = problem()
    expected = ridge_accuracy(train, labels, test, test_labels, num_classes=5)
    scaled = ridge_accuracy(1e-3 * train - 7, labels, 1e-3 * test - 7, test_labels, num_classes=5)
    assert scaled == expected
    wider = [torch.cat([x, torch.full((len(x), 2), 4.3)], 1) for x in (train, test)]
    assert ridge_accuracy(wider[0], labels, wider[1], test_labels, num_classes=5) == expected


def test_a_diverged_network_scores_nan():
    train, labels, test, test_labels = problem()
    train[3, 2] = float('nan')
    assert np.isnan(ridge_accuracy(train, labels, test, test_labels, num_classes=5))


def test_wrong_input_is_refused():
    train, labels, test, test_labels = problem()
    with pytest.raises(UserInputError, match='positive'):
        ridge_accuracy(train, labels, test, test_labels, num_classes=5, penalties=(1., 0.))
    with pytest.raises(UserInputError, match='too few'):
        ridge_accuracy(train[:1], labels[:1], test, test_labels, num_classes=5)
    with pytest.raises(UserInputError, match='too few'):
        choose_and_fit(RidgeSums(2, 2), RidgeSums(2, 2))


# ------------------------------------------------------------------------------------------------ features by block
def batches(number=6, size=32):
    generator = torch.Generator().manual_seed(0)
    for start in range(0, number, 4):
        count = min(4, number - start)
        yield dict(inputs=torch.randint(256, (count, 3, size, size), generator=generator, dtype=torch.uint8),
                   data_samples=[DataSample().set_gt_label(start + i) for i in range(count)])


PREPROCESS = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)


@pytest.mark.parametrize('kind, kwargs', [
    (VisionTransformer, {}), (VisionTransformer, dict(final_norm=False)), (MAEViT, {}),
    (VisionTransformer, dict(with_cls_token=False, out_type='avg_featmap'))])
def test_block_features_are_mean_patch_tokens(kind, kwargs):
    backbone = kind(arch=STUDENT, layer_cfgs=dict(drop_rate=0.5), **SIZE, **kwargs)
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    preprocess = SelfSupDataPreprocessor(**PREPROCESS)
    features, labels = block_features(backbone, batches(), preprocess, (-1, 1, 2, -2, 3))
    assert labels.tolist() == list(range(6)) and list(features) == [-1, 1, 2, -2, 3]

    assert backbone.training  # as it was
    backbone.eval()
    kept = []
    for layer in backbone.layers:
        layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    images = torch.cat([preprocess(batch)['inputs'] for batch in batches()])
    with torch.no_grad():
        VisionTransformer.forward(backbone, images)
        if backbone.final_norm:
            kept[-1] = backbone.ln1(kept[-1])
    first = 0 if kwargs.get('with_cls_token') is False else 1
    for block, layer in ((-1, 2), (3, 2), (-2, 1), (2, 1), (1, 0)):
        assert features[block].dtype == torch.float32
        torch.testing.assert_close(features[block], kept[layer][:, first:].mean(1))


@pytest.mark.parametrize('block', [0, 4, -4])
def test_a_block_that_is_not_there_is_refused(block):
    with pytest.raises(UserInputError, match=f'1 to 3.*not {block}'):
        block_features(VisionTransformer(arch=STUDENT, **SIZE), batches(), SelfSupDataPreprocessor(**PREPROCESS),
                       (1, block))
