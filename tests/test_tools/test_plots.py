"""The tools that draw: numbers that they write beside their pictures, and wrong input."""
import csv
import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.models import VisionTransformer
from PIL import Image

from mimhd_mm.engine.inspection import fixed_images, foreground_masks
from mimhd_mm.engine.loading import load_backbone, read_config
from mimhd_mm.errors import UserInputError
from mimhd_mm.evaluation.token_ranking import PrunedViT, kept_patches, pruned_features
from mimhd_mm.models import RelationViT
from mimhd_mm.registry import MODELS
from mimhd_mm.visualization import curves_figure, history_figure, read_head_weights, read_scalars
from mimhd_mm.visualization.curves import Curve, smooth
from mimhd_mm.visualization.pictures import attention_maps

from ..conftest import SIZE, STUDENT, mimhd_cfg
from .commands import call, error_of

PREPROCESSOR = dict(type='SelfSupDataPreprocessor', mean=[128.] * 3, std=[64.] * 3, to_rgb=True)
ATTENTION, ROUTING = 'analysis_tools/plot_attention.py', 'analysis_tools/plot_head_routing.py'
LOG, RECONSTRUCTION = 'analysis_tools/plot_log.py', 'analysis_tools/plot_reconstruction.py'
TOKENS = 'analysis_tools/rank_tokens.py'


@pytest.fixture(scope='module')
def files(tmp_path_factory, teacher_file):
    """A run's config and two checkpoints; config and checkpoint of a wider student."""
    folder = tmp_path_factory.mktemp('files')
    wide = dict(STUDENT, embed_dims=32, num_heads=4)
    for name, changes in (('run', {}), ('wide', dict(backbone=dict(arch=wide)))):
        model = mimhd_cfg(teacher_file, **changes)
        Config(dict(model=model, data_preprocessor=PREPROCESSOR, default_scope='mmpretrain')).dump(
            str(folder / f'{name}.py'))
        for epoch in (1, 2):
            torch.manual_seed(epoch)
            built = MODELS.build(model)
            built.init_weights()
            for layer in built.backbone.layers:  # far from uniform attention
                torch.nn.init.normal_(layer.attn.qkv.weight, std=0.5)
            torch.save(dict(state_dict=built.state_dict()), folder / f'{name}_{epoch}.pth')
    return folder


def picture(path) -> tuple:
    with Image.open(path) as image:
        assert np.asarray(image.convert('RGB')).std() > 10
        return image.size


# ---- attention -------------------------------------------------------------------------------------------------------
def test_attention_of_several_checkpoints_and_its_overlap(files, image_folder, tmp_path, capsys):
    masks = tmp_path / 'masks'
    for path in image_folder.rglob('*.png'):  # label 3 on the left half, 255 (unlabelled) on the right
        (masks / path.parent.name).mkdir(parents=True, exist_ok=True)
        labels = np.full((32, 32), 255, dtype=np.uint8)
        labels[:, :16] = 3
        Image.fromarray(labels).save(masks / path.parent.name / path.name)
    call(ATTENTION, files / 'run.py', files / 'run_1.pth', files / 'run_2.pth', '--other', files / 'wide.py',
         files / 'wide_1.pth', '--names', 'a', 'b', 'wide', '--untrained', '--images', image_folder, '--masks', masks,
         '--num', 1, '--mask-num', 7, '--out', tmp_path / 'new' / 'a.png')
    assert picture(tmp_path / 'new' / 'a.png')[1] > 900  # five rows
    result = json.loads((tmp_path / 'new' / 'a_iou.json').read_text())
    assert list(result['networks']) == ['untrained', 'a', 'b', 'wide', 'teacher, block 3']
    assert [len(found['heads']) for found in result['networks'].values()] == [3, 3, 3, 4, 4]
    assert result['images'] == 7 and result['whole_image'] == 0.5

    # one network by hand: the fewest patches that have 60 % of the attention, as a set, against the left half
    backbone = load_backbone(read_config(files / 'run.py'), files / 'run_1.pth', RelationViT)
    paths = sorted(image_folder.rglob('*.png'))
    images = fixed_images([paths[i * len(paths) // 7] for i in range(7)], (32, 32), 7, MODELS.build(PREPROCESSOR))
    ious = []
    for weights in attention_maps(backbone, images).numpy().reshape(21, 16):
        order, kept = list(np.argsort(-weights)), set()
        while weights[list(kept)].sum() < 0.6 * weights.sum():
            kept.add(order.pop(0))
        left = {row * 4 + column for row in range(4) for column in range(2)}
        ious.append(len(kept & left) / len(kept | left))
    heads = np.reshape(ious, (7, 3))
    np.testing.assert_allclose(result['networks']['a']['heads'], heads.mean(0), atol=1e-6)
    assert result['networks']['a']['best_head_mean'] == pytest.approx(heads.max(1).mean(), abs=1e-6)
    with open(tmp_path / 'new' / 'a_iou.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 17 and float(rows[3]['iou']) == pytest.approx(heads.mean(0)[0], abs=1e-4)
    assert 'whole image scores 50.0 %' in capsys.readouterr().out


def test_masks_follow_their_images(tmp_path):
    """Wide images are cropped to the middle; the mask of the middle third covers exactly what it covered before."""
    for name in ('images', 'masks'):
        (tmp_path / name).mkdir()
    Image.fromarray(np.zeros((64, 128, 3), dtype=np.uint8)).save(tmp_path / 'images' / 'a.jpg')
    labels = np.zeros((64, 128), dtype=np.uint8)
    labels[:, 64:] = 9  # the right half
    Image.fromarray(labels).save(tmp_path / 'masks' / 'a.png')
    paths = [tmp_path / 'images' / 'a.jpg']
    found = foreground_masks(paths, tmp_path / 'images', tmp_path / 'masks', (56, 56))
    assert found.shape == (1, 56, 56) and not found[..., :28].any() and found[..., 28:].all()
    with pytest.raises(UserInputError, match='No pixel'):
        foreground_masks(paths, tmp_path / 'images', tmp_path / 'masks', (56, 56), [4])
    Image.fromarray(labels[:32]).save(tmp_path / 'masks' / 'a.png')
    with pytest.raises(UserInputError, match='size of'):
        foreground_masks(paths, tmp_path / 'images', tmp_path / 'masks', (56, 56))
    (tmp_path / 'masks' / 'a.png').unlink()
    with pytest.raises(UserInputError, match='has no mask'):
        foreground_masks(paths, tmp_path / 'images', tmp_path / 'masks', (56, 56))


# ---- head routing ----------------------------------------------------------------------------------------------------
def reading(step: int, first: float, pair: str = 'qk', **more) -> str:
    rest = (1 - first) / 3
    return json.dumps(dict(iter=step, epoch=1, pair=pair, W=[[first, rest, rest, rest]] * 3, entropy=0.5, coverage=1.,
                           spread=0.1, **more))


def test_head_routing_of_a_run_and_of_checkpoints(files, image_folder, tmp_path):
    for run, lines in (('1', [reading(1, 0.2), reading(1, 0.3, 'vv'), reading(5, 0.9), reading(5, 0.9, 'vv')]),
                       ('2', [reading(5, 0.4), reading(9, 0.5, blur=0.3), reading(9, 0.5, 'vv')])):  # resumed at 4
        folder = tmp_path / 'run' / run / 'vis_data'
        folder.mkdir(parents=True)
        (folder / 'head_weights.json').write_text('\n'.join(lines) + '\n{"iter": 10, "pa')  # cut off
    found = read_head_weights(tmp_path / 'run')
    assert [(line['iter'], line['pair'], line['W'][0][0]) for line in found] == [
        (1, 'qk', 0.2), (1, 'vv', 0.3), (5, 'qk', 0.4), (5, 'vv', 0.9), (9, 'qk', 0.5), (9, 'vv', 0.5)]
    call(ROUTING, tmp_path / 'run', '--out', tmp_path / 'run.png')
    call(ROUTING, tmp_path / 'run', '--out', tmp_path / 'one.png', '--pairs', 'vv', '--moments', 1)
    assert picture(tmp_path / 'one.png')[1] < picture(tmp_path / 'run.png')[1]  # fewer rows
    call(ROUTING, files / 'run.py', files / 'run_1.pth', files / 'run_2.pth', '--images', image_folder, '--num', 4,
         '--out', tmp_path / 'checkpoints.png')
    picture(tmp_path / 'checkpoints.png')

    assert "none of 'kk'" in error_of(ROUTING, tmp_path / 'run', '--out', tmp_path / 'x.png', '--pairs', 'kk')
    assert "none of 'tiny'" in error_of(ROUTING, tmp_path / 'run', '--out', tmp_path / 'x.png', '--student', 'tiny')
    assert 'No head weights' in error_of(ROUTING, files, '--out', tmp_path / 'x.png')
    assert 'name a folder with --images' in error_of(
        ROUTING, files / 'run.py', files / 'run_1.pth', '--out', tmp_path / 'x.png')
    assert not (tmp_path / 'x.png').exists()


def test_curves_of_head_routing_are_those_that_the_readings_have():
    weights = {'qk': np.full((3, 4), 0.25)}

    def curves(**figures):
        figure = history_figure([('a', weights), ('b', weights)], {'qk': dict(figures, iter=[1, 5])})
        return {line.get_label(): line.get_ydata().tolist() for axis in figure.axes for line in axis.get_lines()}
    old = dict(entropy=[0.5, 0.4], coverage=[1., 1.], spread=[0.1, 0.2])
    assert curves(**old) == old
    assert curves(**old, distinct=[3, 1.5], blur=[0., float('inf')]) == {
        **old, 'distinct rows / 3': [1, 0.5], 'blur': [0, float('inf')]}


# ---- curves ----------------------------------------------------------------------------------------------------------
def write_log(folder, losses: dict, probes: dict = {}) -> None:
    (folder / 'vis_data').mkdir(parents=True)
    lines = [dict(loss=loss, lr=1e-3, time=0.1, epoch=1, iter=step, step=step) for step, loss in losses.items()]
    lines += [{'knn/student': score, 'knn/untrained': 6.2, 'knn/teacher': 10.9, 'step': epoch}
              for epoch, score in probes.items()]
    (folder / 'vis_data' / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)) + '\n{"lo')


def test_curves_of_several_runs(tmp_path):
    write_log(tmp_path / 'a' / '1', {100: 3., 200: 2., 300: 9.})
    write_log(tmp_path / 'a' / '2', {300: 1.5, 400: float('nan')}, {5: 9.3, 10: 9.9})  # resumed
    write_log(tmp_path / 'b' / '1', {100: 4., 200: 3.})
    curves = read_scalars(tmp_path / 'a')
    assert curves['loss'].unit == 'iteration' and curves['loss'].steps == [100, 200, 300, 400]
    assert curves['loss'].values[:3] == [3., 2., 1.5] and np.isnan(curves['loss'].values[3])
    assert curves['knn/student'] == ('epoch', [5, 10], [9.3, 9.9])
    assert 'time' not in curves and 'step' not in curves
    call(LOG, tmp_path / 'a', tmp_path / 'b', '--smooth', 0.5, '--out', tmp_path / 'log.png')
    call(LOG, tmp_path / 'a', '--keys', 'loss', '--out', tmp_path / 'loss.png')
    assert picture(tmp_path / 'log.png')[0] > picture(tmp_path / 'loss.png')[0]

    assert "No run logged 'los'" in error_of(LOG, tmp_path / 'a', '--keys', 'los', '--out', tmp_path / 'x.png')
    assert 'No scalars.json' in error_of(LOG, tmp_path / 'none', '--out', tmp_path / 'x.png')
    (tmp_path / 'other.json').write_text('{"a": "b"}')
    assert 'No scalars.json' in error_of(LOG, tmp_path / 'other.json', '--out', tmp_path / 'x.png')
    assert 'Smoothing' in error_of(LOG, tmp_path / 'a', '--smooth', 1, '--out', tmp_path / 'x.png')
    assert 'different --names' in error_of(LOG, tmp_path / 'a', '--names', 'a', 'b', '--out', tmp_path / 'x.png')


def test_the_levels_of_a_probe_are_lines(tmp_path):
    def curve(*values):
        return Curve('epoch', [5, 10][:len(values)], list(values))
    figure = curves_figure({'run': {'knn/student_a.student': curve(9., 10.), 'knn/student_a.untrained': curve(6., 6.),
                                    'knn/teacher': curve(11., 11.)}})
    axis, = figure.axes
    student, untrained, teacher = axis.get_lines()
    assert student.get_xdata().tolist() == [0, 5, 10] and student.get_ydata().tolist() == [6, 9, 10]  # starts untrained
    assert (untrained.get_ydata()[0], teacher.get_ydata()[0]) == (6, 11)
    assert [text.get_text() for text in axis.texts] == ['untrained', 'teacher']


def test_smoothing_by_hand():
    assert smooth([2., 4., 8.], 0) == [2., 4., 8.]
    np.testing.assert_allclose(smooth([2., 4., 8.], 0.5), [2, (0.5 * 2 + 4) / 1.5, (0.25 * 2 + 0.5 * 4 + 8) / 1.75])
    assert smooth([1., float('inf'), 1.], 0.9) == pytest.approx([1., float('inf'), 1.])


# ---- tokens ----------------------------------------------------------------------------------------------------------
def vit(**kwargs) -> VisionTransformer:
    network = VisionTransformer(arch=STUDENT, out_type='raw', **SIZE, **kwargs)
    network.init_weights()
    for layer in network.layers:
        torch.nn.init.normal_(layer.attn.qkv.weight, std=0.5)
    network.train(False)
    return network


@pytest.mark.parametrize('blocks', [(3, 3, 'after'), (3, 1, 'before'), (1, 2, 'after'), (2, 2, 'before')])
def test_without_pruning_it_is_the_network_itself(blocks):
    network, images = vit(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = network(images)[-1]  # (B, 1 + N, D)
        found = pruned_features(PrunedViT(network, *blocks), images, [1.0, 0.5], seeds=[0, 1])
        classes = pruned_features(PrunedViT(network, *blocks), images, [1.0], pool='cls')
    assert found.shape == (2, 3, 2, 24)
    for order in range(3):
        torch.testing.assert_close(found[:, order, 0], expected[:, 1:].mean(1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(classes[:, 0, 0], expected[:, 0], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found[:, 0, 1], found[:, 1, 1]) and not torch.allclose(found[:, 1, 1], found[:, 2, 1])


def test_pruned_features_by_hand():
    """After the last block: the mean of the tokens that [class] looks at most. Before a block: it never sees others."""
    network, images = vit(), torch.randn(2, 3, 32, 32)
    attention = []
    handle = network.layers[-1].attn.qkv.register_forward_hook(lambda _, __, out: attention.append(out))
    with torch.no_grad():
        tokens = network(images)[-1]
    handle.remove()
    query, key, _ = attention[0].reshape(2, 17, 3, 3, 8).permute(2, 0, 3, 1, 4)
    scores = (query @ key.mT / 8 ** 0.5).softmax(-1)[:, :, 0, 1:].mean(1)  # (B, N)
    found = pruned_features(PrunedViT(network), images, [0.25])
    for image in range(2):
        best = scores[image].argsort(descending=True)[:4]
        torch.testing.assert_close(found[image, 0, 0], tokens[image, 1 + best].mean(0), atol=1e-5, rtol=1e-4)

    # what is dropped before the first block does not matter at all
    early = PrunedViT(network, score_block=1, prune_block=1, place='before')
    with torch.no_grad():
        _, scores = early.embed_and_score(images)
        kept = kept_patches(scores, 0.5)  # (B, 8)
        x, scores = early.embed_and_score(images)
        y = x.clone()
        dropped = torch.ones(2, 17, dtype=torch.bool).scatter(1, 1 + kept, False)
        dropped[:, 0] = False
        y[dropped] = 7.
        assert torch.equal(early.finish(x, kept), early.finish(y, kept))
    assert early.work(0.5) == 0.5 and PrunedViT(network).work(0.5) == 1 and PrunedViT(network, 1).work(0.5) == 2 / 3
    for wrong in (dict(score_block=4), dict(place='around')):
        with pytest.raises(UserInputError):
            PrunedViT(network, **wrong)


def test_token_curves(files, image_folder, tmp_path, capsys):
    classifier = dict(
        type='ImageClassifier', backbone=dict(type='VisionTransformer', arch=STUDENT, out_type='avg_featmap',
                                              final_norm=False, **SIZE),
        head=dict(type='LinearClsHead', num_classes=2, in_channels=24))
    for name, classes in (('many', 5), ('classifier', 2)):
        cfg = dict(classifier, head=dict(classifier['head'], num_classes=classes))
        model = MODELS.build(dict(cfg, type='mmpretrain.ImageClassifier'))
        model.init_weights()
        torch.save(dict(state_dict=model.state_dict()), tmp_path / f'{name}.pth')
        Config(dict(model=cfg, default_scope='mmpretrain', data_preprocessor=dict(
            type='ClsDataPreprocessor', mean=[128.] * 3, std=[64.] * 3, to_rgb=True))).dump(
                str(tmp_path / f'{name}.py'))
    common = ['--train', image_folder, '--test', image_folder, '--k', 3, '--num-workers', 0, '--keep', 0.25, 1]
    call(TOKENS, files / 'run.py', files / 'run_1.pth', '--other', files / 'wide.py', files / 'wide_1.pth',
         '--classifier', tmp_path / 'classifier.py', tmp_path / 'classifier.pth', '--names', 'ours', 'wide', 'tuned',
         *common, '--random', 2, '--out', tmp_path / 'tokens.png')
    picture(tmp_path / 'tokens.png')
    result = json.loads((tmp_path / 'tokens.json').read_text())
    assert result['keep'] == [1.0, 0.25] and result['score_block'] == 'last'
    assert list(result['curves']) == [f'{name}, {order}' for name in ('ours', 'wide', 'tuned')
                                      for order in ('by attention', 'random')]
    for name in ('ours', 'wide', 'tuned'):  # with all patches the order does not matter
        assert result['curves'][f'{name}, by attention'][0] == pytest.approx(result['curves'][f'{name}, random'][0])
    with open(tmp_path / 'tokens.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and rows[1] == dict(network='ours', order='attention', keep='0.25', top1=rows[1]['top1'])
    assert float(rows[1]['top1']) == pytest.approx(result['curves']['ours, by attention'][1], abs=1e-3)

    # the classifier's own accuracy on whole images
    images = fixed_images(image_folder, (32, 32), 32, MODELS.build(PREPROCESSOR))
    model.train(False)
    with torch.no_grad():
        predicted = model.head(model.extract_feat(images)).argmax(1)
    labels = torch.tensor([0] * 16 + [1] * 16)  # folders in their order, blobs and stripes
    accuracy = 100 * (predicted == labels).float().mean().item()
    assert result['curves']['tuned, by attention'][0] == pytest.approx(accuracy, abs=1e-3)

    out = ['--out', tmp_path / 'x.png']
    run = [TOKENS, files / 'run.py', files / 'run_1.pth']
    assert '5 classes' in error_of(*run, '--classifier', tmp_path / 'many.py', tmp_path / 'many.pth', *common, *out)
    assert 'takes a fine-tuned' in error_of(*run, '--classifier', *run[1:], '--names', 'a', 'b', *common, *out)
    assert 'shares above 0' in error_of(*run, *common[:-3], '--keep', 1.5, *out)
    assert 'blocks 1 to 3' in error_of(*run, *common, '--score-block', 4, *out)
    assert 'no folder' in error_of(*run, '--train', tmp_path / 'no', '--test', image_folder, *out)
    assert not (tmp_path / 'x.png').exists()


# ---- wrong input -----------------------------------------------------------------------------------------------------
def test_one_sentence_for_wrong_input(files, image_folder, tmp_path):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'file').write_text('')
    (tmp_path / 'folder.png').mkdir()
    (tmp_path / 'broken').mkdir()
    (tmp_path / 'broken' / 'a.png').write_bytes(b'no picture')
    for tool in (ATTENTION, RECONSTRUCTION):
        run = [tool, files / 'run.py', files / 'run_1.pth', '--images']
        out = ['--out', tmp_path / 'x.png']
        assert 'No image in' in error_of(*run, tmp_path / 'empty', *out)
        assert 'None of 1 images decodes' in error_of(*run, tmp_path / 'broken', *out)
        assert 'at least 1' in error_of(*run, image_folder, *out, '--num', 0)
        told = error_of(tool, files / 'run.py', files / 'wide_1.pth', '--images', image_folder, *out)
        assert '(1, 1, 32) in the file but (1, 1, 24) in the network' in told
        assert 'cannot be written' in error_of(*run, image_folder, '--out', tmp_path / 'file' / 'x.png')
        assert 'cannot be written' in error_of(*run, image_folder, '--out', '/proc/x.png')  # for the superuser too
        assert 'is a folder' in error_of(*run, image_folder, '--out', tmp_path / 'folder.png')
        assert 'does not end in' in error_of(*run, image_folder, '--out', tmp_path / 'x.bmp')
    run = [ATTENTION, files / 'run.py', files / 'run_1.pth', '--out', tmp_path / 'x.png']
    assert 'needs --images' in error_of(*run, '--masks', tmp_path)
    assert 'has no mask' in error_of(*run, '--images', image_folder, '--masks', tmp_path, '--num', 1)
    assert 'different --names' in error_of(*run, '--images', image_folder, '--names', 'a', 'b')
