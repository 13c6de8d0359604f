"""The hooks that draw inside real, tiny pre-training runs."""
import copy
import json
import uuid
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.models import SelfSupDataPreprocessor
from PIL import Image

from mimhd_mm.datasets import PackedImages
from mimhd_mm.engine.hooks import AttentionHook, HeadRoutingHook, ReconstructionHook, drawing_hook
from mimhd_mm.engine.inspection import decodable_images, fixed_images, teacher_reconstruction
from mimhd_mm.errors import UserInputError
from mimhd_mm.models import AttentionHeadMatcher
from mimhd_mm.registry import RUNNERS
from mimhd_mm.visualization import read_head_weights

from ...conftest import DECODER, SIZE, TEACHER, build_mae, mimhd_cfg

NORMALISE = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
ALL = [dict(type='HeadRoutingHook', interval=2), dict(type='ReconstructionHook', interval=1, num=2),
       dict(type='AttentionHook', interval=1, num=2)]


class Losses(Hook):
    """Every step's loss, the modes of the model and a number from each generator."""

    def __init__(self):
        self.seen = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.seen.append((float(outputs['loss'].detach()), [part.training for part in runner.model.modules()],
                          torch.rand(1).item(), np.random.rand()))


def train(work_dir: Path, model: dict, images: Path, hooks: list, epochs: int = 2, **changes) -> tuple:
    """Train on 32 images in 4 batches an epoch; returns the Runner and what :class:`Losses` saw."""
    losses = Losses()
    crop = dict(type='RandomResizedCrop', scale=32, crop_ratio_range=(0.5, 1.0))
    cfg = dict(
        model=copy.deepcopy(model), data_preprocessor=dict(type='SelfSupDataPreprocessor', **NORMALISE),
        work_dir=str(work_dir), default_scope='mmpretrain', randomness=dict(seed=3), log_level='INFO',
        train_dataloader=dict(
            batch_size=8, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
            dataset=dict(type='CustomDataset', data_root=str(images), with_label=False,
                         pipeline=[dict(type='LoadImageFromFile'), crop, dict(type='PackInputs')])),
        train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=2)),
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]),
        custom_hooks=[copy.deepcopy(hook) for hook in hooks if isinstance(hook, dict)],
        experiment_name=uuid.uuid4().hex)
    cfg = Config({**cfg, **changes})
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    for hook in hooks:
        if isinstance(hook, Hook):
            runner.register_hook(hook)
    runner.register_hook(losses, priority='LOWEST')
    runner.train()
    return runner, losses.seen


def log_of(runner: Runner) -> str:
    return next(Path(runner.log_dir).glob('*.log')).read_text()


def pictures_of(runner: Runner) -> list:
    return sorted(path.name for path in (Path(runner.log_dir) / 'vis_data' / 'vis_image').glob('*'))


@pytest.fixture(scope='module')
def drawn(tmp_path_factory, teacher_file, image_folder):
    """A run with all hooks."""
    model = mimhd_cfg(teacher_file, backbone=dict(drop_path_rate=0.1))
    return train(tmp_path_factory.mktemp('drawn'), model, image_folder, ALL)


@pytest.mark.slow
def test_training_is_the_same_with_and_without(drawn, tmp_path, teacher_file, image_folder):
    model = mimhd_cfg(teacher_file, backbone=dict(drop_path_rate=0.1))
    plain, without = train(tmp_path, model, image_folder, [])
    assert len(without) == 8 and np.isfinite([loss for loss, *_ in without]).all()
    assert without == drawn[1]
    for key, value in plain.model.state_dict().items():
        assert torch.equal(value, drawn[0].model.state_dict()[key]), key
    assert not pictures_of(plain)


@pytest.mark.slow
def test_what_a_run_leaves_on_disk(drawn):
    runner, _ = drawn
    assert pictures_of(runner) == sorted(
        [f'{name}_{step}.png' for name in ('attention', 'reconstruction') for step in (0, 4, 8)]
        + [f'head_routing_{step}.png' for step in (1, 2, 4, 6, 8)])
    for path in (Path(runner.log_dir) / 'vis_data' / 'vis_image').glob('*'):
        with Image.open(path) as picture:
            assert np.asarray(picture).std() > 10, path
    readings = read_head_weights(runner.work_dir)
    assert [(reading['iter'], reading['pair']) for reading in readings] == [
        (step, pair) for step in (1, 2, 4, 6, 8) for pair in ('qk', 'vv')]
    for reading in readings:
        assert np.shape(reading['W']) == (3, 4)
        np.testing.assert_allclose(np.sum(reading['W'], 1), 1, atol=1e-4)
    last = runner.model.head.matchers['vv']
    np.testing.assert_allclose(readings[-1]['W'], last.last_weight.mean(0), atol=1e-5)
    assert all(len(str(share)) <= 7 for share in readings[-1]['W'][0])  # rounded
    assert readings[-1]['epoch'] == 2 and readings[0]['epoch'] == 1
    assert readings[-1]['entropy'] == pytest.approx(float(last.diagnostics()['head_entropy']), abs=1e-4)
    assert log_of(runner).count(' times in ') == 3 and ' % of ' in log_of(runner)  # what it cost


def test_the_teachers_own_is_the_mae_of_its_file(build_mimhd, teacher_file):
    """Against mmpretrain's MAE, which draws its own mask: half of the patches, here, that view 1 hides."""
    mae = build_mae()
    mae.load_state_dict(torch.load(teacher_file, weights_only=True)['state_dict'])
    mae.backbone.mask_ratio = 0.5
    mae.train(False)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        latent, mask, ids_restore = mae.backbone(images)
        expected = mae.neck(latent, ids_restore)  # (B, N, P)
    model, mask = build_mimhd(), mask.bool()
    torch.nn.init.zeros_(model.neck.decoder_pred.weight)  # what training has made of the decoder does not matter
    found = teacher_reconstruction(model.target_generator, model, images, torch.stack([mask, ~mask]))
    torch.testing.assert_close(found[mask], expected[mask], atol=1e-5, rtol=1e-4)
    assert expected[mask].std() > 0.01 and not torch.allclose(found[~mask], expected[~mask], atol=1e-3)


@pytest.mark.slow
def test_tensorboard_reads_what_was_drawn(tmp_path, teacher_file, image_folder):
    accumulator = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    backends = [dict(type='TensorboardVisBackend')]
    runner, _ = train(tmp_path, mimhd_cfg(teacher_file), image_folder, ALL, epochs=1,
                      visualizer=dict(type='Visualizer', vis_backends=backends))
    runner.visualizer.close()
    events = accumulator.EventAccumulator(str(Path(runner.log_dir) / 'vis_data'), size_guidance=dict(images=0))
    events.Reload()
    assert set(events.Tags()['images']) == {'attention', 'head_routing', 'reconstruction'}
    assert [event.step for event in events.Images('head_routing')] == [1, 2, 4]
    assert [event.step for event in events.Images('reconstruction')] == [0, 4]
    picture = events.Images('attention')[-1]
    assert picture.encoded_image_string.startswith(b'\x89PNG') and picture.width > picture.height > 100
    assert {'loss', 'loss_rec'} <= set(events.Tags()['scalars'])
    assert len(read_head_weights(tmp_path)) == 6  # numbers are on disk whatever the backend


@pytest.mark.parametrize('matcher, word', [
    (dict(type='AttentionHeadMatcher', descriptor='mean', balance=None, embeddings=False), 'uniform'),
    (dict(type='SelectHeadMatcher', heads=[2, 2, 2]), 'collapsed'),
    (dict(type='SelectHeadMatcher', heads=[2, 2, 0, 0, 1, 1]), 'repeated: 6 student heads have 3 different rows'),
    (dict(type='SelectHeadMatcher', heads=[2, 0, 1]), None)])
def test_warns_of_weights_that_teach_little(tmp_path, teacher_file, image_folder, matcher, word):
    model = mimhd_cfg(teacher_file, head=dict(matcher=matcher), neck=None, rec_head=None)
    model['backbone']['relation_heads'] = len(matcher.get('heads', '123'))
    runner, _ = train(tmp_path, model, image_folder, [ALL[0]], epochs=1)
    lines = [line for line in log_of(runner).splitlines() if 'Head weights of' in line]
    assert len(lines) == (2 if word else 0)  # one a relation, once each
    assert all('WARNING' in line and word in line for line in lines)


def test_warns_once_of_targets_that_are_blurred():
    hook, lines = HeadRoutingHook(blurred_above=0.3), []
    runner = SimpleNamespace(logger=SimpleNamespace(warning=lines.append))
    reading = dict(iter=5, pair='qk', W=[[.5, .5, 0.], [0., .5, .5]], entropy=.6, coverage=1., distinct=2.)
    for blur in (0.2, 0.4, 0.5):
        hook._judge(runner, dict(reading, blur=blur), AttentionHeadMatcher(2, 3), '')
    assert len(lines) == 1 and 'blurred: 40 % of the loss can be removed by no student' in lines[0]


@pytest.mark.slow
def test_several_students_have_pictures_of_their_own(tmp_path, teacher_file, image_folder):
    tiny = mimhd_cfg(teacher_file)
    teacher = tiny.pop('target_generator')
    wider = dict(tiny, backbone=dict(tiny['backbone'], arch=dict(tiny['backbone']['arch'], num_heads=6)))
    model = dict(type='mimhd_mm.MultiStudent', students=dict(tiny=tiny, wide=wider), target_generator=teacher)
    runner, _ = train(
        tmp_path, model, image_folder, ALL, epochs=1, runner_type='mimhd_mm.MultiStudentRunner',
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3), constructor='StudentOptimWrapperConstructor'))
    names = pictures_of(runner)
    assert {'attention-tiny_4.png', 'attention-wide_0.png', 'reconstruction-wide_4.png', 'head_routing-tiny_1.png'
            } <= set(names) and not [name for name in names if '-' not in name]
    assert {(reading['student'], len(reading['W'])) for reading in read_head_weights(tmp_path)} == {
        ('tiny', 3), ('wide', 6)}
    assert 'drew nothing' not in log_of(runner) and "leaves the teacher's" not in log_of(runner)


def test_an_error_while_drawing_does_not_stop_training(tmp_path, teacher_file, image_folder):
    folder = tmp_path / 'broken'
    folder.mkdir()
    (folder / 'a.png').write_bytes(b'no picture')
    runner, seen = train(tmp_path / 'run', mimhd_cfg(teacher_file), image_folder, [
        dict(type='AttentionHook', images=str(folder), interval=1)], epochs=1)
    assert len(seen) == 4 and not pictures_of(runner)
    assert 'AttentionHook drew nothing at iteration 0' in log_of(runner) and 'training continues' in log_of(runner)
    assert f"Skipped the image '{folder / 'a.png'}'" in log_of(runner)


def test_a_teacher_that_is_gone_leaves_its_column_out(tmp_path, teacher_file, image_folder):
    class Remove(Hook):
        def before_train(self, runner):
            (tmp_path / 'mae.pth').unlink()

    (tmp_path / 'mae.pth').write_bytes(teacher_file.read_bytes())
    runner, _ = train(tmp_path / 'run', mimhd_cfg(tmp_path / 'mae.pth'), image_folder, [Remove(), ALL[1]], epochs=1)
    assert log_of(runner).count("leaves the teacher's reconstruction out") == 1
    assert pictures_of(runner) == ['reconstruction_0.png', 'reconstruction_4.png']


def test_models_without_anything_to_draw(tmp_path, image_folder):
    mae = dict(
        type='mmpretrain.MAE', backbone=dict(type='MAEViT', arch=TEACHER, mask_ratio=0.75, **SIZE),
        neck=dict(type='MAEPretrainDecoder', num_patches=16, patch_size=8, embed_dim=48, **DECODER),
        head=dict(type='MAEPixelHead', norm_pix=True, patch_size=8,
                  loss=dict(type='PixelReconstructionLoss', criterion='L2')))
    runner, seen = train(tmp_path, mae, image_folder, ALL, epochs=2)
    assert len(seen) == 8 and not pictures_of(runner)
    assert log_of(runner).count('has nothing to draw') == 2 and 'WARNING' not in log_of(runner).split('Epoch')[-1]


def test_wrong_settings_stop_a_run_before_it_has_begun(tmp_path, teacher_file, image_folder):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UserInputError, match='No image in .*empty'):
        train(tmp_path / 'run', mimhd_cfg(teacher_file), image_folder, [
            dict(type='ReconstructionHook', images=str(tmp_path / 'empty'))])
    for kind, settings in ((AttentionHook, dict(interval=0)), (ReconstructionHook, dict(interval=2.5)),
                           (HeadRoutingHook, dict(uniform_above=1.5))):
        with pytest.raises(UserInputError):
            kind(**settings)


def test_only_the_main_process_draws(tmp_path, teacher_file, image_folder, monkeypatch):
    monkeypatch.setattr(drawing_hook, 'is_main_process', lambda: False)
    runner, _ = train(tmp_path, mimhd_cfg(teacher_file), image_folder, ALL, epochs=1)
    assert not pictures_of(runner) and not list(tmp_path.rglob('head_weights.json'))
    assert 'Hook' not in log_of(runner).split('before_run')[-1].split('Epoch(train)')[-1]


# ---- the images they look at -----------------------------------------------------------------------------------------
def test_an_image_that_does_not_decode_gives_way_to_the_next(tmp_path, image_folder):
    paths = []
    for number, source in enumerate(sorted(image_folder.rglob('*.png'))[:6]):
        paths.append(tmp_path / f'{number}.png')
        content = source.read_bytes()
        paths[-1].write_bytes(content[:len(content) // 2] if number in (0, 4, 5) else content)
    assert decodable_images(paths, 3) == [paths[1], paths[2]]  # of 0-1, 2-3 and 4-5
    assert decodable_images(paths, 2) == [paths[1], paths[3]]
    with pytest.raises(UserInputError, match='None of 2 images decodes'):
        decodable_images(paths[4:], 1)
    with pytest.raises(UserInputError, match='at least 1'):
        decodable_images(paths, 0)


def test_images_of_a_packed_data_set_are_those_of_the_folder(tmp_path, image_folder):
    from ...test_tools.commands import call
    call('dataset_converters/pack_images.py', image_folder, tmp_path / 'packed.safetensors', '--size', 32)
    preprocess = SelfSupDataPreprocessor(**NORMALISE)
    packed = fixed_images(PackedImages(str(tmp_path / 'packed.safetensors')), (32, 32), 4, preprocess)
    plain = fixed_images(image_folder, (32, 32), 4, preprocess)
    torch.testing.assert_close(packed, plain)
    assert packed.shape == (4, 3, 32, 32)
    json.dumps(packed.tolist(), allow_nan=False)  # finite
