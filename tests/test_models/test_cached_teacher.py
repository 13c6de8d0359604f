"""CachedTeacher: a student learns what the teacher itself would teach, and a file that does not fit is refused."""
import copy
import pickle
import shutil

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.hooks import Hook
from safetensors import safe_open
from torch.utils.data import DataLoader

from mimhd_mm.datasets import FixedViews
from mimhd_mm.engine import teacher_caching
from mimhd_mm.engine.cached_training import use_teacher_cache
from mimhd_mm.engine.hooks.compile_hook import compile_networks
from mimhd_mm.engine.teacher_caching import CacheWriter, ViewsInOrder
from mimhd_mm.errors import UserInputError, root_cause
from mimhd_mm.models import CachedTeacher
from mimhd_mm.models.relation import QKV
from mimhd_mm.models.views import count_seen
from mimhd_mm.registry import MODELS

from ..conftest import STUDENT, mimhd_cfg
from ..test_engine.runs import equal, read, settings, state_of, train
from .test_multi_student import multi_cfg

VIEWS, BATCH = 3, 8
EPOCHS = dict(type='EpochBasedTrainLoop', max_epochs=3)


def run_settings(model, image_folder, **changes) -> dict:
    return settings(model, image_folder, EPOCHS, **changes)


def write(config, path, **options):
    CacheWriter(Config(copy.deepcopy(config)), path, VIEWS, **options).write(BATCH)
    return path


def cached(config, path, **changes) -> dict:
    """The config that trains with a file."""
    config = Config(copy.deepcopy(dict(config, default_scope='mmpretrain')))
    config.model.target_generator.update(type='CachedTeacher', cache=str(path))
    config.merge_from_dict(changes)
    use_teacher_cache(config)
    return config.to_dict()


@pytest.fixture(scope='module')
def files(tmp_path_factory, teacher_file, image_folder):
    """One file of all patches and one of half of them."""
    folder, config = tmp_path_factory.mktemp('cache'), run_settings(mimhd_cfg(teacher_file), image_folder)
    return {fraction: write(config, folder / f'{fraction}.safetensors', token_fraction=fraction)
            for fraction in (1.0, 0.5)}


def build(config):
    model = MODELS.build(dict(config['model'], data_preprocessor=config['data_preprocessor']))
    torch.manual_seed(3)
    model.init_weights()
    return model.train()


def batches(model, config):
    """All views in the order and the batches in which the file was written."""
    dataset = config['train_dataloader']['dataset']
    views = FixedViews(dataset['dataset'], dataset['num_views'], dataset['view_seed'])
    for batch in DataLoader(ViewsInOrder(views), BATCH, collate_fn=default_collate):
        yield model.data_preprocessor(batch)


@pytest.mark.parametrize('held, fraction', [(1.0, 1.0), (1.0, 0.5), (0.5, 0.5)])
def test_equals_the_teacher(files, teacher_file, image_folder, held, fraction):
    """q, k, v are the teacher's, rounded; the losses are those of the rounded teacher, and close to its own."""
    told = {'model.token_fraction': fraction, 'model.target_generator.token_fraction': 'same' if held < 1 else 1.0}
    plain = Config(run_settings(mimhd_cfg(teacher_file), image_folder))
    plain.merge_from_dict(told)
    config = cached(run_settings(mimhd_cfg(teacher_file), image_folder), files[held], **told)
    model, reference = build(config), build(plain)
    model.load_state_dict(reference.state_dict())
    for number, batch in enumerate(batches(model, config)):
        images, samples = batch['inputs'], batch['data_samples']
        if held < 1:
            seen = model.target_generator.chosen_tokens(samples, fraction)  # (B, n)
            assert seen.shape == (BATCH, count_seen(16, fraction)) and bool((seen[:, 1:] > seen[:, :-1]).all())
        else:
            seen = torch.rand(BATCH, 16).argsort(1)[:, :count_seen(16, fraction)] if fraction < 1 else None
            assert model.target_generator.chosen_tokens(samples, fraction) is None
        exact = reference.target_generator(images, seen)
        rounded = QKV(*(x.to(torch.bfloat16) for x in exact))
        assert all(torch.equal(*pair) for pair in zip(rounded, model.target_generator(images, seen, samples)))
        if number == 0:
            losses = []
            for teacher, student in ((rounded, reference), (exact, reference), (None, model)):
                torch.manual_seed(number)
                if teacher is None and (held < 1 or fraction == 1):
                    losses.append(student.loss(images, samples))
                else:
                    losses.append(student.distil(
                        images, teacher or student.target_generator(images, seen, samples), seen))
            for key, value in losses[0].items():
                torch.testing.assert_close(value, losses[2][key], rtol=1e-6, atol=0)  # sums in another order
                torch.testing.assert_close(value, losses[1][key], rtol=0.02, atol=1e-4)
    assert number + 1 == 32 * VIEWS // BATCH


def test_the_file(files):
    """Read by safetensors; subsets differ between views; nothing but the file is there."""
    with safe_open(files[0.5], 'pt') as file:
        qkv, seen = file.get_tensor('qkv'), file.get_tensor('seen')
    assert qkv.shape == (32, VIEWS, 3, 4, 9, 12) and qkv.dtype == torch.bfloat16
    assert seen.shape == (32, VIEWS, 8) and seen.dtype == torch.int16 and len(seen.flatten(0, 1).unique(dim=0)) > 80
    assert sorted(path.name for path in files[0.5].parent.iterdir()) == ['0.5.safetensors', '1.0.safetensors']


class Places(Hook):
    """Which views were seen, by epoch, and whether they are those of the data set."""

    def __init__(self):
        self.seen = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        views = runner.train_dataloader.dataset.dataset
        for image, sample in zip(data_batch['inputs'], data_batch['data_samples']):
            self.seen.setdefault(sample.sample_index, []).append(sample.view)
            assert torch.equal(image, views.view(sample.sample_index, sample.view)['inputs'])


@pytest.mark.slow
@pytest.mark.parametrize('held', [1.0, 0.5])
def test_a_run_and_its_resumption(tmp_path, files, teacher_file, image_folder, held):
    """With and without a worker; interrupted in the middle of an epoch; every image is seen in all views."""
    config = cached(run_settings(mimhd_cfg(teacher_file, token_fraction=held), image_folder,
                                 train_dataloader=dict(batch_size=4)), files[held])
    config['default_hooks']['teacher_file'] = dict(type='TeacherFileHook')
    places = Places()
    whole, seen, status = train(config, tmp_path / 'whole', hook=places)
    assert status is None and len(seen.steps) == 24
    assert len(places.seen) == 32 and all(sorted(views) == [0, 1, 2] for views in places.seen.values())
    _, first, _ = train(config, tmp_path / 'cut', 12)
    worker = copy.deepcopy(config)
    worker['train_dataloader'].update(num_workers=1)
    resumed, second, _ = train(worker, tmp_path / 'cut', resume=True)
    assert {**first.steps, **second.steps} == seen.steps and equal(state_of(whole), state_of(resumed))
    saved = read(tmp_path / 'whole' / 'epoch_3.pth')
    assert not any('target_generator' in key for key in saved['state_dict'])
    assert saved['meta']['teacher']['sha256'] == whole.model.target_generator.sha256


@pytest.mark.slow
@pytest.mark.parametrize('there', [True, False])
def test_hooks_that_look_at_a_teacher(tmp_path, files, teacher_file, image_folder, there):
    """They work from the MAE file; without it each that needs it says in a line that it leaves the teacher out."""
    config = run_settings(mimhd_cfg(teacher_file), image_folder, train_cfg=dict(max_epochs=1), log_level='INFO')
    labelled = dict(type='CustomDataset', data_root=str(image_folder),
                    pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')])
    config['custom_hooks'] = [
        dict(type='KNNProbeHook', train=labelled, test=labelled, k=3, num_workers=0), dict(type='ReconstructionHook'),
        dict(type='AttentionHook'), dict(type='HeadRoutingHook'), dict(type='TeacherFileHook'),
        dict(type='CompileHook', devices=('cpu', ), backend='eager')]
    changes = {} if there else {'model.target_generator.checkpoint': str(tmp_path / 'gone.pth'), 'model.rec_weight': 0.}
    config = cached(config, files[1.0], **changes)
    config['visualizer'] = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
    _, seen, _ = train(config, tmp_path / 'run')
    log = next((tmp_path / 'run').rglob('*.log')).read_text()
    assert len(seen.steps) == 6 and ('KNNProbeHook leaves the teacher out' in log) != there
    assert ('teacher ' in [line for line in log.splitlines() if 'k-NN top-1' in line][-1]) == there
    assert bool(list((tmp_path / 'run').rglob('*reconstruction*.png'))) == there
    assert list((tmp_path / 'run').rglob('*attention*.png')) and "leaves the teacher's own out" not in log


def test_several_students(files, teacher_file, image_folder):
    """Each gets the losses that it gets alone."""
    multi = run_settings(multi_cfg(teacher_file, token_fraction=0.5), image_folder)
    together = build(cached(multi, files[0.5]))
    config = cached(run_settings(mimhd_cfg(teacher_file, token_fraction=0.5, backbone=dict(drop_path_rate=0.2)),
                                 image_folder), files[0.5])
    alone = build(config)
    alone.load_state_dict(together.students['tiny'].state_dict())
    batch = next(batches(alone, config))
    losses = together.eval().loss(**batch)
    expected = alone.eval().loss(**batch)
    for key in ('loss_qk', 'loss_vv'):
        assert torch.equal(expected[key], losses[f'tiny.{key}'])
    assert {key.split('.')[0] for key in losses} == {'tiny', 'small', 'base'}


def test_two_images_of_a_view(tmp_path, teacher_file, image_folder):
    """The teacher was shown the second one, without the student's colours."""
    config = run_settings(mimhd_cfg(teacher_file), image_folder)
    config['train_dataloader']['dataset']['pipeline'].insert(-1, dict(type='StudentColorJitter', brightness=0.4))
    config = cached(config, write(config, tmp_path / 'cache'))
    plain = build(run_settings(mimhd_cfg(teacher_file), image_folder))
    model = build(config)
    batch = next(batches(model, config))
    exact = plain.target_generator(batch['inputs'][1])
    held = model.target_generator(batch['inputs'][1], None, batch['data_samples'])
    assert all(torch.equal(one.to(torch.bfloat16), other) for one, other in zip(exact, held))
    assert model.loss(**batch)


def test_stays_small(files, teacher_file, image_folder):
    """No encoder, nothing in a checkpoint, always in evaluation mode; copies map the file anew."""
    model = build(cached(run_settings(mimhd_cfg(teacher_file), image_folder), files[1.0]))
    teacher = model.target_generator
    assert not list(teacher.parameters()) and not teacher.state_dict()
    teacher.cache.qkv([0], [0])
    assert len(pickle.dumps(teacher.cache)) < 1000
    assert torch.equal(copy.deepcopy(teacher).cache.qkv([1], [2]), teacher.cache.qkv([1], [2]))
    compile_networks(model, backend='eager')


def test_the_mae_file_is_needed_for_its_decoder_only(files, teacher_file, image_folder, tmp_path):
    gone = {'model.target_generator.checkpoint': str(tmp_path / 'gone.pth')}
    config = run_settings(mimhd_cfg(teacher_file), image_folder)
    build(cached(config, files[1.0], **gone, **{'model.rec_weight': 0.}))
    build(cached(config, files[1.0], **{'model.target_generator.checkpoint': None, 'model.rec_weight': 0.}))
    for changes, words in ((gone, 'gone.pth'), ({'model.target_generator.checkpoint': None}, 'needs the decoder')):
        with pytest.raises(UserInputError, match=words):
            build(cached(config, files[1.0], **changes))
    other = torch.load(teacher_file, weights_only=True)
    other['state_dict']['backbone.cls_token'] += 1
    torch.save(other, tmp_path / 'other.pth')
    for weight in (0., 1.):
        with pytest.raises(UserInputError, match='has sha256'):
            build(cached(config, files[1.0], **{'model.target_generator.checkpoint': str(tmp_path / 'other.pth'),
                                                'model.rec_weight': weight}))


CROP = 'train_dataloader.dataset.pipeline.1.crop_ratio_range'


@pytest.mark.parametrize('held, changes, words', [
    (1.0, {'model.target_generator.block': 2}, ['block=3', 'says 2']),
    (1.0, {'model.target_generator.img_size': 64}, ['img_size=32', 'says 64']),
    (1.0, {'model.target_generator.patch_size': 4}, ['patch_size=8', 'says 4']),
    (1.0, {'model.target_generator.arch': STUDENT}, ['arch=', "'embed_dims': 24"]),
    (1.0, {'model.target_generator.dtype': 'bfloat16'}, ['dtype=None', "'bfloat16'"]),
    (1.0, {'model.target_generator.token_fraction': 0.3}, ["'same'", '0.3']),
    (1.0, {'model.token_fraction': 0.5}, ['saw all patches', '0.5', '--token-fraction 0.5']),
    (0.5, {}, ['the share 0.5', 'model.token_fraction is 1.0']),
    (0.5, {'model.token_fraction': 0.25}, ['the share 0.5', 'model.token_fraction is 0.25']),
    (0.5, {'model.token_fraction': 0.5, 'model.target_generator.token_fraction': 1.0}, ["'same'"]),
    (1.0, {CROP: (0.2, 1.0)}, ['dataset.pipeline.1.crop_ratio_range.0=0.3', 'says 0.2']),
    (1.0, {'train_dataloader.dataset.with_label': True}, ['dataset.with_label=False', 'says True']),
    (1.0, {'data_preprocessor.to_rgb': False}, ['data_preprocessor.to_rgb=True', 'says False']),
    (1.0, {'data_preprocessor.type': 'DeviceAugmentation'}, ['DeviceAugmentation', 'SelfSupDataPreprocessor']),
])
def test_refuses_another_teacher_or_pipeline(files, teacher_file, image_folder, held, changes, words):
    with pytest.raises(Exception) as caught:
        cached(run_settings(mimhd_cfg(teacher_file), image_folder), files[held], **changes)
    error = root_cause(caught.value)
    assert isinstance(error, UserInputError) and all(word in str(error) for word in words), error


def test_refuses_other_images_under_the_same_name(teacher_file, image_folder, tmp_path):
    shutil.copytree(image_folder, tmp_path / 'images')
    config = run_settings(mimhd_cfg(teacher_file), tmp_path / 'images')
    path = write(config, tmp_path / 'cache')
    first = tmp_path / 'images' / 'blobs' / '0.png'
    shutil.copy(image_folder / 'stripes' / '0.png', first)
    with pytest.raises(UserInputError, match='other pixels'):
        cached(config, path)
    first.unlink()
    with pytest.raises(UserInputError, match='32 images and the data set has 31'):
        cached(config, path)


def test_refuses_samples_that_are_no_views(files, teacher_file, image_folder):
    config = cached(run_settings(mimhd_cfg(teacher_file), image_folder), files[1.0])
    model = build(config)
    batch = next(batches(model, config))
    with pytest.raises(UserInputError, match='FixedViews'):
        model.loss(batch['inputs'])
    batch['data_samples'][2].set_metainfo(dict(view=VIEWS))
    with pytest.raises(UserInputError, match='3 views of 32 images, but view 3'):
        model.loss(**batch)


def test_refuses_a_damaged_file(files, teacher_file, image_folder, tmp_path):
    content = files[0.5].read_bytes()
    for number, (part, words) in enumerate([
            (content[:-1], 'its header says'), (content + b'0', 'its header says'), (content[:100], 'no file of'),
            (content.replace(b'teacher_cache.1', b'teacher_cache.0'), 'no file of'), (b'', 'no file of'),
            (content.replace(b'"qkv": ', b'"pqr": ', 1), 'no file of')]):
        (tmp_path / str(number)).write_bytes(part)
        with pytest.raises(UserInputError, match=words):
            CachedTeacher(str(tmp_path / str(number)))
    with pytest.raises(UserInputError, match='tools/cache_teacher.py'):
        CachedTeacher(str(tmp_path / 'nowhere'))


def test_too_little_room_and_a_failure_leave_nothing(teacher_file, image_folder, tmp_path, monkeypatch):
    config = Config(run_settings(mimhd_cfg(teacher_file), image_folder))
    writer = CacheWriter(config, tmp_path / 'out' / 'cache', VIEWS)
    with monkeypatch.context() as patch:
        usage = shutil.disk_usage(tmp_path)
        patch.setattr(teacher_caching.shutil, 'disk_usage', lambda path: usage._replace(free=writer.num_bytes - 1))
        with pytest.raises(UserInputError, match='make room'):
            writer.write()

    def fails(batches, total):
        yield from list(batches)[:1]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writer.write(BATCH, progress=fails)
    assert not list((tmp_path / 'out').iterdir())
    writer.write(BATCH)
    assert (tmp_path / 'out' / 'cache').stat().st_size == writer.num_bytes
    with pytest.raises(UserInputError, match='not overwritten'):
        CacheWriter(config, tmp_path / 'out' / 'cache', VIEWS)
