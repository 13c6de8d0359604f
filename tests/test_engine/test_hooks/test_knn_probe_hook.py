"""The k-NN probe inside real, tiny pre-training runs."""
import copy
import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from PIL import Image

from mimhd_mm.compat import load_checkpoint_safely
from mimhd_mm.engine.hooks import KNNProbeHook
from mimhd_mm.engine.loading import build_untrained
from mimhd_mm.errors import UserInputError

ROOT = Path(__file__).parents[3]
ARCH = dict(embed_dims=48, num_layers=2, num_heads=4, feedforward_channels=96)
NORMALISE = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
REC_HEAD = dict(type='MAEPixelHead', norm_pix=True, patch_size=8,
                loss=dict(type='PixelReconstructionLoss', criterion='L2'))


def mae() -> dict:
    return dict(
        type='MAE', backbone=dict(type='MAEViT', arch=ARCH, img_size=32, patch_size=8),
        neck=dict(type='MAEPretrainDecoder', num_patches=16, patch_size=8, embed_dim=48, decoder_embed_dim=32,
                  decoder_depth=1, decoder_num_heads=2),
        head=REC_HEAD, init_cfg=[dict(type='Xavier', layer='Linear', distribution='uniform')])


def mimhd(checkpoint: Path) -> dict:
    return dict(
        type='MIMHD', backbone=dict(type='RelationViT', arch=dict(ARCH, num_heads=3), img_size=32, patch_size=8,
                                    drop_path_rate=0.1),
        target_generator=dict(type='MAETeacher', checkpoint=str(checkpoint), arch=ARCH, img_size=32, patch_size=8,
                              block=1),
        head=dict(type='RelationDistillHead'),
        neck=dict(type='DualViewMAEDecoder', decoder_embed_dim=32, decoder_depth=1, decoder_num_heads=2),
        rec_head=REC_HEAD)


def write_images(folder: Path, per_class: int, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    for label in range(3):
        (folder / f'class_{label}').mkdir(parents=True)
        colour = np.roll([200, 60, 30], label)
        for number in range(per_class):
            pixels = (colour + rng.normal(0, 60, (32, 32, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f'class_{label}' / f'{number}.png')
    return folder


def dataset(folder: Path, *transforms: dict, **kwargs) -> dict:
    return dict(type='CustomDataset', data_root=str(folder),
                pipeline=[dict(type='LoadImageFromFile'), *transforms, dict(type='PackInputs')], **kwargs)


class Losses(Hook):
    """Keeps every loss and the modes of the model at every step."""

    def __init__(self):
        self.losses, self.modes = [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(float(outputs['loss'].detach()))
        self.modes.append([part.training for part in runner.model.modules()])


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmpretrain')


@pytest.fixture
def folders(tmp_path):
    return write_images(tmp_path / 'train', 8, seed=0), write_images(tmp_path / 'test', 4, seed=1)


@pytest.fixture
def teacher_file(tmp_path):
    torch.manual_seed(0)
    model = MODELS.build(mae())
    model.init_weights()
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'mae.pth')
    return tmp_path / 'mae.pth'


def probe(folders, **kwargs) -> dict:
    return dict(dict(type='KNNProbeHook', train=dataset(folders[0]), test=dataset(folders[1]), interval=2, k=5,
                     batch_size=8, num_workers=0), **kwargs)


def run(work_dir: Path, model: dict, folders, hooks: list, epochs: int = 3, optim_wrapper=None, **kwargs) -> tuple:
    """Train; returns the runner and what :class:`Losses` saw."""
    seen = Losses()
    crop = dict(type='RandomResizedCrop', scale=32, crop_ratio_range=(0.5, 1.0))
    cfg = dict(
        model=model, data_preprocessor=dict(type='SelfSupDataPreprocessor', **NORMALISE), work_dir=str(work_dir),
        train_dataloader=dict(batch_size=6, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
                              collate_fn=dict(type='default_collate'),
                              dataset=dataset(folders[0], crop, with_label=False)),
        train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=epochs),
        optim_wrapper=optim_wrapper or dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]),
        custom_hooks=[*hooks, seen], randomness=dict(seed=3), default_scope='mmpretrain',
        experiment_name=f'{work_dir.name}_{uuid.uuid4().hex}', log_level='INFO', **kwargs)  # one visualizer a name
    cfg = dict(cfg, cfg={**copy.deepcopy({key: value for key, value in cfg.items() if key != 'custom_hooks'}),
                         'custom_hooks': [hook for hook in hooks if isinstance(hook, dict)]})
    runner = Runner(**cfg)
    runner.train()
    return runner, seen


def log_lines(runner: Runner) -> list:
    text = next(Path(runner.log_dir).glob('*.log')).read_text()
    return re.findall(r'k-NN top-1 .*', text)


def scalars(runner: Runner) -> list:
    lines = (Path(runner.log_dir) / 'vis_data' / 'scalars.json').read_text().splitlines()
    return [line for line in map(json.loads, lines) if any(key.startswith('knn/') for key in line)]


@pytest.mark.slow
@pytest.mark.parametrize('algorithm', ['mae', 'mimhd'])
def test_training_is_the_same_with_and_without(tmp_path, folders, teacher_file, algorithm):
    model = mae() if algorithm == 'mae' else mimhd(teacher_file)
    plain, without = run(tmp_path / 'plain', copy.deepcopy(model), folders, [])
    probed, with_probe = run(tmp_path / 'probed', copy.deepcopy(model), folders, [probe(folders, num_workers=1)])
    assert len(without.losses) == 12 and np.isfinite(without.losses).all()
    assert without.losses == with_probe.losses
    assert without.modes == with_probe.modes
    for key, value in plain.model.state_dict().items():
        assert torch.equal(value, probed.model.state_dict()[key]), key


def test_reports_the_student_between_untrained_and_teacher(tmp_path, folders, teacher_file):
    runner, _ = run(tmp_path / 'run', mimhd(teacher_file), folders, [probe(folders)])
    number = r'\d+\.\d\d'
    lines = log_lines(runner)
    assert len(lines) == 3  # before, after epoch 2 (interval), after epoch 3 (the last)
    assert re.fullmatch(rf'k-NN top-1 \(k=5\): untrained {number}, teacher {number}', lines[0])
    assert re.fullmatch(rf'k-NN top-1 \(k=5\): untrained {number}, epoch 2 {number}, teacher {number}', lines[1])
    assert 'epoch 3' in lines[2]
    written = scalars(runner)
    assert [line['step'] for line in written] == [0, 2, 3]
    assert set(written[0]) == {'knn/untrained', 'knn/teacher', 'step'}
    assert set(written[1]) == {'knn/untrained', 'knn/teacher', 'knn/student', 'step'}
    assert f'epoch 3 {written[2]["knn/student"]:.2f}' in lines[2]
    assert all(0 <= value <= 100 for line in written for key, value in line.items() if key != 'step')


@pytest.mark.slow
def test_each_of_several_students_is_scored(tmp_path, folders, teacher_file):
    single = mimhd(teacher_file)
    model = dict(type='MultiStudent', target_generator=single.pop('target_generator'),
                 students=dict(a=single, b=dict(single, backbone=dict(single['backbone'], arch=ARCH))))
    optimiser = dict(constructor='StudentOptimWrapperConstructor', optimizer=dict(type='AdamW', lr=1e-3))
    runner, _ = run(tmp_path / 'run', copy.deepcopy(model), folders, [probe(folders)], epochs=2,
                    optim_wrapper=optimiser)
    number = r'\d+\.\d\d'
    lines = log_lines(runner)
    assert [re.match(r'k-NN top-1 \(k=5, (\w)\)', line).group(1) for line in lines] == ['a', 'b', 'a', 'b']
    assert re.fullmatch(rf'k-NN top-1 \(k=5, b\): untrained {number}, epoch 2 {number}, teacher {number}', lines[3])
    written = scalars(runner)
    assert set(written[1]) == {'knn/teacher', 'step', *(f'knn/{name}.{what}' for name in 'ab'
                                                        for what in ('untrained', 'student'))}
    hook = next(hook for hook in runner.hooks if isinstance(hook, KNNProbeHook))
    for name, student in runner.model.students.items():
        assert written[1][f'knn/{name}.student'] == hook.probe.score_backbone(
            student.backbone, runner.model.data_preprocessor)
    resumed, _ = run(tmp_path / 'run', model, folders, [probe(folders)], resume=True, optim_wrapper=optimiser)
    assert scalars(resumed)[0].items() >= {**written[0], 'step': 2}.items()


def test_the_teacher_is_the_whole_encoder_of_the_file(tmp_path, folders, teacher_file):
    """Its number is that of the MAE it comes from, of which the run itself keeps one block."""
    runner, _ = run(tmp_path / 'run', mimhd(teacher_file), folders, [probe(folders)], epochs=1)
    hook = next(hook for hook in runner.hooks if isinstance(hook, KNNProbeHook))
    whole = MODELS.build(mae())
    whole.load_state_dict(torch.load(teacher_file, weights_only=True)['state_dict'])
    assert hook.scores['teacher'] == hook.probe.score_backbone(whole.backbone, runner.model.data_preprocessor)


def test_mae_has_no_teacher(tmp_path, folders):
    runner, _ = run(tmp_path / 'run', mae(), folders, [probe(folders, interval=1)], epochs=1)
    assert 'teacher' not in ' '.join(log_lines(runner)) and len(log_lines(runner)) == 2
    assert set(scalars(runner)[-1]) == {'knn/untrained', 'knn/student', 'step'}


@pytest.mark.parametrize('algorithm', ['mae', 'mimhd'])
def test_rebuilt_untrained_student_is_the_one_the_run_began_with(tmp_path, folders, teacher_file, algorithm):
    class Start(Hook):
        def before_train(self, runner):
            self.state = copy.deepcopy(runner.model.state_dict())

    start = Start()
    model = mae() if algorithm == 'mae' else mimhd(teacher_file)
    runner, _ = run(tmp_path / 'run', model, folders, [start], epochs=1)
    before = torch.get_rng_state()
    rebuilt = build_untrained(runner.cfg, runner.seed).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    assert set(rebuilt) == set(start.state)
    for key, value in rebuilt.items():
        assert torch.equal(value, start.state[key]), key


@pytest.mark.slow
def test_a_resumed_run_reports_the_same_references(tmp_path, folders, teacher_file):
    first, _ = run(tmp_path / 'run', mimhd(teacher_file), folders, [probe(folders)], epochs=2)
    second, _ = run(tmp_path / 'run', mimhd(teacher_file), folders, [probe(folders)], epochs=3, resume=True)
    assert scalars(second)[0].items() >= {**scalars(first)[0], 'step': 2}.items()
    assert 'epoch 3' in log_lines(second)[-1]


def test_bad_folders_stop_the_run_before_training(tmp_path, folders):
    hook = probe(folders, test=dataset(tmp_path / 'nowhere'))
    with pytest.raises(UserInputError, match=r'custom_hooks\.0\.test.*nowhere'):
        run(tmp_path / 'run', mae(), folders, [hook])
    with pytest.raises(UserInputError, match='k=25'):
        run(tmp_path / 'run2', mae(), folders, [probe(folders, k=25)])
    assert not list(tmp_path.glob('run*/*.pth'))


TRAIN_ON_GLOO = """
import sys
import torch.distributed
from mmengine.config import Config
from mmengine.runner import Runner
import mimhd_mm
torch.distributed.init_process_group('gloo')
for path in sys.argv[1:]:
    Runner.from_cfg(Config.fromfile(path)).train()
"""


@pytest.mark.slow
def test_two_processes_score_once_and_train_alike(tmp_path, folders):
    """Rank 0 alone scores; the weights stay those of a run without the hook."""
    config = dict(
        model=mae(), data_preprocessor=dict(type='SelfSupDataPreprocessor', **NORMALISE),
        train_dataloader=dict(batch_size=6, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
                              collate_fn=dict(type='default_collate'),
                              dataset=dataset(folders[0], with_label=False)),
        train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=2),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=2)), default_scope='mmpretrain',
        launcher='pytorch', model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None),
        randomness=dict(seed=3, diff_rank_seed=True))
    (tmp_path / 'train.py').write_text(TRAIN_ON_GLOO)
    weights = {}
    for name, hooks in (('plain', []), ('probed', [probe(folders)])):
        settings = {**config, 'custom_hooks': hooks, 'work_dir': str(tmp_path / name)}
        (tmp_path / f'{name}.py').write_text('\n'.join(f'{key} = {value!r}' for key, value in settings.items()))
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2',
         str(tmp_path / 'train.py'), str(tmp_path / 'plain.py'), str(tmp_path / 'probed.py')],
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'CUDA_VISIBLE_DEVICES': ''}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, lines in (('plain', 0), ('probed', 2)):
        weights[name] = load_checkpoint_safely(tmp_path / name / 'epoch_2.pth')['state_dict']
        log = next((tmp_path / name).glob('*/*.log')).read_text()
        assert len(re.findall('k-NN top-1', log)) == lines
    for key, value in weights['plain'].items():
        assert torch.equal(value, weights['probed'][key]), key
