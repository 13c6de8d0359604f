"""k-NN on frozen features: the rule, the probe around it, and the tool on top."""
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmpretrain.models import MAEViT, SelfSupDataPreprocessor, VisionTransformer
from mmpretrain.structures import DataSample
from PIL import Image

from mimhd_mm.errors import UserInputError
from mimhd_mm.evaluation import KNNProbe, extract_features, knn_accuracy
from mimhd_mm.evaluation.knn_probe import pixel_features, raw_output, token_features
from mimhd_mm.random_states import evaluating, kept_random_states

from ..test_tools.commands import call, error_of

ARCH = dict(embed_dims=48, num_layers=2, num_heads=4, feedforward_channels=96)
NORMALISE = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)


def write_images(folder: Path, classes: int = 3, per_class: int = 8, size: int = 32, seed: int = 0) -> str:
    """Class folders of noisy PNGs; every class has a colour of its own."""
    rng = np.random.default_rng(seed)
    for label in range(classes):
        (folder / f'class_{label}').mkdir(parents=True)
        colour = np.roll([200, 60, 30], label)
        for number in range(per_class):
            pixels = (colour + rng.normal(0, 20, (size, size, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f'class_{label}' / f'{number}.png')
    return str(folder)


def dataset(folder, **kwargs) -> dict:
    return dict(type='mmpretrain.CustomDataset', data_root=str(folder),
                pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')], **kwargs)


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmpretrain')


@pytest.fixture
def folders(tmp_path):
    return write_images(tmp_path / 'train', seed=0), write_images(tmp_path / 'test', per_class=5, seed=1)


def naive_knn(train, train_labels, test, test_labels, k, temperature, num_classes):
    correct = 0
    for image, label in zip(test.tolist(), test_labels.tolist()):
        similarities = []
        for other, vote in zip(train.tolist(), train_labels.tolist()):
            product = sum(a * b for a, b in zip(image, other))
            norms = sum(a * a for a in image) ** .5 * sum(a * a for a in other) ** .5
            similarities.append((product / norms, vote))
        votes = [0.] * num_classes
        for similarity, vote in sorted(similarities, reverse=True)[:k]:
            votes[vote] += 2.718281828459045 ** (similarity / temperature)
        correct += votes.index(max(votes)) == label
    return 100 * correct / len(test)


def random_problem(n=60, m=40, dims=7, classes=4):
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(n, dims, generator=generator), torch.randint(classes, (n,), generator=generator),
            torch.randn(m, dims, generator=generator), torch.randint(classes, (m,), generator=generator))


# ------------------------------------------------------------------------------------------------------- the rule
@pytest.mark.parametrize('k, temperature', [(1, 0.07), (5, 0.07), (20, 0.5), (60, 0.07)])
def test_equals_a_naive_loop(k, temperature):
    problem = random_problem()
    found = knn_accuracy(*problem, k=k, temperature=temperature, num_classes=4)
    assert found == naive_knn(*problem, k, temperature, 4)
    assert 5 < found < 60  # neither nothing nor everything, so that equality says something


def test_separated_classes_give_100():
    labels = torch.arange(30) % 3
    features = torch.eye(3)[labels] + 0.01 * torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    assert knn_accuracy(features, labels, features.flip(0), labels.flip(0), k=5, num_classes=3) == 100
    # the length of a feature does not matter
    assert knn_accuracy(features * 1000, labels, features * 1e-3, labels, k=5, num_classes=3) == 100
    assert knn_accuracy(features, labels, features, (labels + 1) % 3, k=5, num_classes=3) == 0


def test_features_without_information_give_chance():
    train, train_labels, test, test_labels = random_problem(n=2000, m=2000, dims=16, classes=5)
    found = knn_accuracy(train, train_labels, test, test_labels, k=20, num_classes=5)
    assert 20 - 4 < found < 20 + 4  # 4 standard deviations of 2000 draws are 3.6 points


def test_the_nearest_outvotes_a_majority_at_a_low_temperature():
    train = torch.tensor([[1., 0.], [0.7, 0.7], [0.7, 0.7]])
    labels, test = torch.tensor([0, 1, 1]), torch.tensor([[1., 0.]])
    assert knn_accuracy(train, labels, test, torch.tensor([0]), k=3, temperature=0.07, num_classes=2) == 100
    assert knn_accuracy(train, labels, test, torch.tensor([1]), k=3, temperature=10., num_classes=2) == 100


@pytest.mark.parametrize('max_similarities', [1, 60, 61, 180, 10**9])
def test_chunks_do_not_change_the_result(max_similarities):
    problem = random_problem()
    assert knn_accuracy(*problem, k=9, num_classes=4, max_similarities=max_similarities) == \
        knn_accuracy(*problem, k=9, num_classes=4)


def test_a_diverged_network_scores_nan():
    train, train_labels, test, test_labels = random_problem()
    test[3, 2] = float('inf')
    assert np.isnan(knn_accuracy(train, train_labels, test, test_labels, k=5, num_classes=4))


@pytest.mark.parametrize('k', [0, 61])
def test_impossible_k_is_refused(k):
    with pytest.raises(UserInputError, match=f'k={k}.*1 to 60'):
        knn_accuracy(*random_problem(), k=k, num_classes=4)


def test_features_keep_the_order_of_the_batches():
    images = torch.randint(256, (7, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    samples = [DataSample().set_gt_label(label) for label in (3, 1, 4, 1, 5, 9, 2)]
    batches = [dict(inputs=images[i:i + 3], data_samples=samples[i:i + 3]) for i in range(0, 7, 3)]
    features, labels = extract_features(lambda x: x.flatten(1), batches, SelfSupDataPreprocessor(**NORMALISE))
    assert labels.tolist() == [3, 1, 4, 1, 5, 9, 2]
    mean, std = (torch.tensor(NORMALISE[name]).view(3, 1, 1) for name in ('mean', 'std'))
    torch.testing.assert_close(features, ((images.flip(1) - mean) / std).flatten(1))


# ------------------------------------------------------------------------------------------------------- the probe
@pytest.mark.parametrize('kind', [VisionTransformer, MAEViT])
@pytest.mark.parametrize('out_type', ['cls_token', 'avg_featmap'])
def test_token_features_are_those_of_the_last_block_after_the_norm(kind, out_type):
    torch.manual_seed(0)
    backbone = kind(arch=ARCH, img_size=32, patch_size=8, out_type=out_type, out_indices=0)
    backbone.init_weights()
    torch.nn.init.normal_(backbone.ln1.weight)
    images = torch.randn(2, 3, 32, 32)
    with evaluating(backbone):
        tokens = torch.cat([backbone.cls_token.expand(2, -1, -1), backbone.patch_embed(images)[0]], dim=1)
        tokens = tokens + backbone.pos_embed
        for number, layer in enumerate(backbone.layers):
            tokens = layer(tokens)
            if not number:
                first_block = tokens
        tokens = backbone.ln1(tokens)
        with raw_output(backbone, 1):
            early = token_features(backbone, images, 'avg')
        with raw_output(backbone):
            average, first = (token_features(backbone, images, feature) for feature in ('avg', 'cls'))
    torch.testing.assert_close(average, tokens[:, 1:].mean(1))
    torch.testing.assert_close(first, tokens[:, 0])
    torch.testing.assert_close(early, first_block[:, 1:].mean(1))  # without the norm, which is the last block's
    assert backbone.out_type == out_type and backbone.out_indices == [0]


def test_probe_tells_colours_apart_and_noise_not(folders):
    probe = KNNProbe(*map(dataset, folders), k=5, num_workers=0, batch_size=7)
    preprocess = SelfSupDataPreprocessor(**NORMALISE)
    assert probe.score(pixel_features, preprocess) == 100
    chance = probe.score(lambda images: torch.ones(len(images), 2), preprocess)
    assert chance == pytest.approx(100 / 3, abs=1e-6)


def test_probe_leaves_modes_and_random_states(folders):
    backbone = VisionTransformer(arch=ARCH, img_size=32, patch_size=8, drop_rate=0.5, drop_path_rate=0.5)
    backbone.train()
    backbone.layers[0].eval()
    modes = [part.training for part in backbone.modules()]
    probe = KNNProbe(*map(dataset, folders), k=5, num_workers=1)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    scores = [probe.score_backbone(backbone, SelfSupDataPreprocessor(**NORMALISE)) for _ in range(2)]
    assert scores[0] == scores[1]  # dropout was off
    assert modes == [part.training for part in backbone.modules()] and True in modes and False in modes
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_random_states_come_back_after_an_error():
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), float(torch.rand(()))
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with pytest.raises(RuntimeError), kept_random_states():
        random.random(), np.random.rand(), torch.rand(())
        raise RuntimeError
    assert expected == (random.random(), np.random.rand(), float(torch.rand(())))


def test_subsets_are_spread_over_all_classes(folders):
    probe = KNNProbe(*map(dataset, folders), k=5, max_train=6, max_test=3)
    labels = [int(sample['data_samples'].gt_label) for sample in probe.train]
    assert labels == [0, 0, 1, 1, 2, 2] and len(probe.test) == 3


def test_wrong_settings_are_refused(folders, tmp_path):
    train, test = map(dataset, folders)
    with pytest.raises(UserInputError, match='k=20.*1 to 6'):
        KNNProbe(train, test, max_train=6)
    with pytest.raises(UserInputError, match="'max'"):
        KNNProbe(train, test, feature='max')
    with pytest.raises(UserInputError, match='labels in `test`'):
        KNNProbe(train, dataset(folders[1], with_label=False), k=5)
    with pytest.raises(UserInputError, match="same classes.*'class_2'"):
        KNNProbe(train, dataset(write_images(tmp_path / 'two', classes=2)), k=5)
    with pytest.raises(UserInputError, match='blocks 1 to 2, not 3'):
        KNNProbe(train, test, k=5).score_backbone(
            VisionTransformer(arch=ARCH, img_size=32, patch_size=8), SelfSupDataPreprocessor(**NORMALISE), block=3)
    with pytest.raises(UserInputError, match='not of Linear'):
        KNNProbe(train, test, k=5).score_backbone(torch.nn.Linear(1, 1), SelfSupDataPreprocessor(**NORMALISE))
    backbone = VisionTransformer(arch=ARCH, img_size=32, patch_size=8, with_cls_token=False, out_type='raw')
    with pytest.raises(UserInputError, match="without one; use 'avg'"):
        KNNProbe(train, test, k=5, feature='cls').score_backbone(backbone, SelfSupDataPreprocessor(**NORMALISE))


# ------------------------------------------------------------------------------------------------------- the tool
def write_run(folder: Path, teacher: bool = True) -> tuple:
    """A MIM-HD config with a checkpoint, and the MAE file of its teacher: paths of the first two."""
    mae = dict(
        type='MAE', backbone=dict(type='MAEViT', arch=ARCH, img_size=32, patch_size=8),
        neck=dict(type='MAEPretrainDecoder', num_patches=16, patch_size=8, embed_dim=48, decoder_embed_dim=32,
                  decoder_depth=1, decoder_num_heads=2),
        head=dict(type='MAEPixelHead', norm_pix=True, patch_size=8,
                  loss=dict(type='PixelReconstructionLoss', criterion='L2')))
    model = dict(
        type='MIMHD', backbone=dict(type='RelationViT', arch=dict(ARCH, num_heads=3), img_size=32, patch_size=8),
        target_generator=dict(type='MAETeacher', checkpoint=str(folder / 'mae.pth'), arch=ARCH, img_size=32,
                              patch_size=8, block=1),
        head=dict(type='RelationDistillHead'),
        neck=dict(type='DualViewMAEDecoder', decoder_embed_dim=32, decoder_depth=1, decoder_num_heads=2),
        rec_head=mae['head'])
    config = folder / 'config.py'
    config.write_text(f'default_scope = "mmpretrain"\ndata_preprocessor = dict(type="SelfSupDataPreprocessor", '
                      f'**{NORMALISE})\nmodel = {model}\nrandomness = dict(seed=3)\n')
    from mmpretrain.registry import MODELS
    torch.manual_seed(0)
    source = MODELS.build(mae)
    source.init_weights()
    torch.save(dict(state_dict=source.state_dict()), folder / 'mae.pth')
    student = MODELS.build(model)
    student.init_weights()
    torch.save(dict(state_dict=student.state_dict()), folder / 'epoch_1.pth')
    if not teacher:
        (folder / 'mae.pth').unlink()
    return str(config), str(folder / 'epoch_1.pth')


def test_tool_prints_and_writes_the_table(folders, tmp_path, capsys):
    config, checkpoint = write_run(tmp_path)
    call('knn.py', config, checkpoint, '--train', folders[0], '--test', folders[1], '--k', 5, '--untrained', '--blocks',
         '--num-workers', 0, '--out', tmp_path / 'out.json')
    printed = capsys.readouterr().out
    table = json.loads((tmp_path / 'out.json').read_text())
    assert list(table['top1']) == ['untrained student', 'this checkpoint', 'its teacher', 'raw pixels (32 x 32)']
    assert table['top1']['raw pixels (32 x 32)'] == 100
    for name, tops in table['top1_of_blocks'].items():
        assert tops[-1] == table['top1'][name] and len(tops) == ARCH['num_layers']
    assert (table['num_train'], table['num_test'], table['num_classes']) == (24, 15, 3)
    for name, score in table['top1'].items():
        assert any(name in line and f'{score:.2f}' in line for line in printed.splitlines())


def test_tool_does_without_the_teachers_file(folders, tmp_path, capsys):
    config, checkpoint = write_run(tmp_path, teacher=False)
    call('knn.py', config, checkpoint, '--train', folders[0], '--test', folders[1], '--k', 5, '--num-workers', 0,
         '--feature', 'cls')
    printed = capsys.readouterr().out
    assert 'this checkpoint' in printed and 'teacher' not in printed


@pytest.mark.parametrize('change, sentence', [
    (('--k', '25'), 'k=25'), (('--train', 'nowhere'), 'nowhere'), ((), 'epoch_9.pth')])
def test_tool_refuses_wrong_input_in_one_sentence(folders, tmp_path, change, sentence):
    config, checkpoint = write_run(tmp_path)
    options = {'--train': folders[0], '--test': folders[1], '--num-workers': '0', **dict([change] if change else [])}
    if not change:
        checkpoint = checkpoint.replace('epoch_1', 'epoch_9')
    assert sentence in error_of('knn.py', config, checkpoint, *(word for pair in options.items() for word in pair))


def test_large_images_are_cropped_and_small_ones_kept(tmp_path):
    from mimhd_mm.engine.loading import list_images, read_images
    preprocess = SelfSupDataPreprocessor(to_rgb=True)
    small = list_images(write_images(tmp_path / 'small', classes=1, per_class=2, size=32))
    kept = read_images(small, (32, 32), 2, preprocess)
    expected = torch.from_numpy(np.stack([np.array(Image.open(path)) for path in small])).permute(0, 3, 1, 2)
    assert torch.equal(kept, expected.float())
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[:, 32:96] = 255  # the centre is white
    (tmp_path / 'wide').mkdir()
    Image.fromarray(wide).save(tmp_path / 'wide' / '0.png')
    cropped = read_images(list_images(tmp_path / 'wide'), (56, 56), 1, preprocess)
    assert cropped.shape == (1, 3, 56, 56) and cropped.min() > 250
