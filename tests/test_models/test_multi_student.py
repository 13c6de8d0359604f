"""MultiStudent: what each student learns from the shared teacher is what it learns in a run of its own, to the bit."""
import copy
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from torch.nn.parallel import DistributedDataParallel

from mimhd_mm.compat import load_checkpoint_safely
from mimhd_mm.errors import UserInputError, root_cause
from mimhd_mm.models import MAETeacher
from mimhd_mm.models.selfsup.random_streams import MOST_WORDS, RandomStreams, move_offset
from mimhd_mm.registry import MODELS

from ..conftest import STUDENT, mimhd_cfg

ROOT = Path(__file__).parents[2]
WIDER = dict(embed_dims=32, num_layers=2, num_heads=4, feedforward_channels=64)


def single_cfgs(teacher_file) -> dict:
    """Three students with random numbers of every kind: masks, both kinds of drop path, images chosen."""
    single = dict(
        tiny=mimhd_cfg(teacher_file, backbone=dict(drop_path_rate=0.2)),
        small=mimhd_cfg(teacher_file, backbone=dict(arch=WIDER), rec_fraction=0.5, rec_weight=0.5),
        base=mimhd_cfg(teacher_file, type='TinyMIM', backbone=dict(relation_heads=4, constant_drop_path=0.3),
                       head=dict(matcher=dict(type='OneToOneHeadMatcher'), with_cls_token=True)))
    del single['base']['neck'], single['base']['rec_head']
    return single


def multi_cfg(teacher_file, **changes) -> dict:
    students = single_cfgs(teacher_file)
    teachers = [student.pop('target_generator') for student in students.values()]
    students['tiny'].pop('type')  # MIMHD it is
    return dict(dict(type='MultiStudent', students=students, target_generator=teachers[0]), **changes)


def build(cfg):
    model = MODELS.build(copy.deepcopy(cfg))
    model.init_weights()
    return model


@pytest.fixture
def multi(teacher_file):
    return build(multi_cfg(teacher_file))


TRAIN_ON_GLOO = """
import sys
import torch.distributed
from mmengine.config import Config
from mmengine.registry import RUNNERS
import mimhd_mm
torch.distributed.init_process_group('gloo')
for path in sys.argv[1:]:
    RUNNERS.build(Config.fromfile(path)).train()
"""


# ---- in the Runner ---------------------------------------------------------------------------------------------------
class Watch(Hook):
    """Keeps what every step logs, the rates and how often the teacher was asked."""

    def __init__(self):
        self.steps, self.rates, self.passes = [], [], []

    def before_train(self, runner):
        runner.model.target_generator.register_forward_hook(lambda *_: self.passes.append(runner.iter))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.steps.append({key: value.item() for key, value in outputs.items()})
        self.rates.append(runner.optim_wrapper.get_lr())


def runner_cfg(model, image_folder, work_dir, epochs=2, **changes) -> Config:
    """Of a run of 7 steps an epoch, every second of which updates weights."""
    pipeline = [dict(type='LoadImageFromFile'), dict(type='RandomFlip', prob=0.5), dict(type='PackInputs')]
    cfg = Config(dict(
        default_scope='mmpretrain', custom_imports=dict(imports=['mimhd_mm']), work_dir=str(work_dir),
        model=copy.deepcopy(model),
        data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[128.] * 3, std=[64.] * 3, to_rgb=True),
        train_dataloader=dict(
            batch_size=5, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
            dataset=dict(type='CustomDataset', data_root=str(image_folder), with_label=False, pipeline=pipeline)),
        optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=3e-3, weight_decay=0.05), clip_grad=dict(max_norm=0.5),
            accumulative_counts=2,
            paramwise_cfg=dict(norm_decay_mult=0., custom_keys=dict(cls_token=dict(decay_mult=0.)))),
        param_scheduler=[dict(type='CosineAnnealingLR', T_max=epochs, by_epoch=True, convert_to_iter_based=True)],
        train_cfg=dict(by_epoch=True, max_epochs=epochs), auto_scale_lr=dict(base_batch_size=10, enable=True),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=2), checkpoint=dict(type='CheckpointHook', interval=1),
            head_weight=dict(type='HeadWeightHook', interval=2), teacher_file=dict(type='TeacherFileHook')),
        randomness=dict(seed=11), log_level='ERROR', experiment_name=uuid.uuid4().hex))
    if cfg.model.type == 'MultiStudent':
        cfg.merge_from_dict(dict(runner_type='mimhd_mm.MultiStudentRunner',
                                 optim_wrapper=dict(constructor='StudentOptimWrapperConstructor')))
    cfg.merge_from_dict(changes)
    return cfg


def train(*args, **kwargs):
    watch = Watch()
    runner = Runner.from_cfg(runner_cfg(*args, **kwargs))
    runner.register_hook(watch)
    runner.train()
    return runner, watch


def assert_same_as_alone(name, alone, together):
    """Losses of every step, rates, and weights of a student, exactly."""
    assert len(alone[1].steps) == len(together[1].steps) > 1
    for own, ours in zip(alone[1].steps, together[1].steps):
        assert own == {key[len(name) + 1:]: value for key, value in ours.items() if key.startswith(f'{name}.')}
    for own, ours in zip(alone[1].rates, together[1].rates):
        assert own == {key[len(name) + 1:]: value for key, value in ours.items() if key.startswith(f'{name}.')}
    own, ours = alone[0].model.state_dict(), together[0].model.students[name].state_dict()
    assert set(own) == set(ours)
    assert all(torch.equal(value, ours[key]) for key, value in own.items())


@pytest.fixture(scope='module')
def together(teacher_file, image_folder, tmp_path_factory):
    return train(multi_cfg(teacher_file), image_folder, tmp_path_factory.mktemp('together'))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['tiny', 'small', 'base'])
def test_each_student_learns_what_it_learns_alone(together, teacher_file, image_folder, tmp_path, name):
    """14 steps in two epochs, of which every second updates weights."""
    alone = train(single_cfgs(teacher_file)[name], image_folder, tmp_path)
    assert_same_as_alone(name, alone, together)
    start = build(single_cfgs(teacher_file)[name])
    assert any(not torch.equal(value, start.state_dict()[key]) for key, value in alone[0].model.state_dict().items())


def test_the_teacher_is_asked_once_a_step(together):
    runner, watch = together
    assert watch.passes == list(range(14))
    assert [type(part) for part in runner.model.modules() if isinstance(part, MAETeacher)] == [MAETeacher]
    for step in watch.steps:
        assert step['loss'] == pytest.approx(sum(step[f'{name}.loss'] for name in runner.model.students), rel=1e-6)
    assert set(watch.steps[0]) == {'loss', *(f'{name}.{key}' for name in ('tiny', 'small', 'base')
                                             for key in ('loss', 'loss_qk', 'loss_vv')), 'tiny.loss_rec',
                                   'small.loss_rec'}


def test_checkpoint_and_optimisers_are_the_students(together):
    runner, _ = together
    checkpoint = load_checkpoint_safely(f'{runner.work_dir}/epoch_2.pth')
    assert {key.split('.')[0] for key in checkpoint['state_dict']} == {'students'}
    assert not any('target_generator' in key or 'decoder' in key for key in checkpoint['state_dict'])
    assert set(checkpoint['optimizer']) == set(checkpoint['param_schedulers']) == {'tiny', 'small', 'base'}
    assert checkpoint['meta']['teacher']['sha256'] == runner.model.target_generator.sha256
    frozen = {id(parameter) for parameter in runner.model.target_generator.parameters()}
    for name, wrapper in runner.optim_wrapper.items():
        held = {id(parameter) for group in wrapper.optimizer.param_groups for parameter in group['params']}
        learned = {id(parameter) for parameter in runner.model.students[name].parameters() if parameter.requires_grad}
        assert learned and held >= learned and not held & frozen


def test_log_tells_students_apart(together):
    runner, _ = together
    entries = [json.loads(line) for line in open(f'{runner.log_dir}/vis_data/{runner.timestamp}.json')]
    for key in ('loss', 'tiny.loss_qk', 'small.head_entropy_qk', 'base.head_spread_vv', 'tiny.lr', 'base.grad_norm'):
        assert key in entries[-1], entries[-1]
    assert entries[-1]['tiny.grad_norm'] != entries[-1]['base.grad_norm']


@pytest.mark.slow
def test_resumed_students_go_on_as_resumed_alone(teacher_file, image_folder, tmp_path):
    train(multi_cfg(teacher_file), image_folder, tmp_path / 'together', epochs=1)
    together = train(multi_cfg(teacher_file), image_folder, tmp_path / 'together', epochs=2, resume=True)
    assert together[0].epoch == 2 and len(together[1].steps) == 7
    for name in ('tiny', 'base'):
        single = single_cfgs(teacher_file)[name]
        train(single, image_folder, tmp_path / name, epochs=1)
        assert_same_as_alone(name, train(single, image_folder, tmp_path / name, epochs=2, resume=True), together)


@pytest.mark.slow
def test_resume_refuses_other_students_and_another_teacher(teacher_file, image_folder, tmp_path):
    cfg = multi_cfg(teacher_file)
    train(cfg, image_folder, tmp_path / 'run', epochs=1)
    fewer = copy.deepcopy(cfg)
    del fewer['students']['small']
    with pytest.raises(UserInputError, match='Cannot resume: the checkpoint is of the students tiny, small, base'):
        train(fewer, image_folder, tmp_path / 'run', epochs=2, resume=True)
    content = torch.load(teacher_file, weights_only=True)
    content['state_dict']['backbone.cls_token'] += 1
    torch.save(content, tmp_path / 'another.pth')
    with pytest.raises(UserInputError, match='Cannot resume: this checkpoint was taught by'):
        train(multi_cfg(tmp_path / 'another.pth'), image_folder, tmp_path / 'run', epochs=2, resume=True)


def test_settings_of_one_student(teacher_file, image_folder, tmp_path):
    """A rate and a clip of its own for one, a scheduler by student; the others keep to what holds for all."""
    own = dict(small=dict(optimizer=dict(lr=7e-3), clip_grad=dict(max_norm=9.), accumulative_counts=1))
    cfg = runner_cfg(multi_cfg(teacher_file), image_folder, tmp_path, auto_scale_lr=dict(enable=False),
                     optim_wrapper=dict(students=own))
    cfg.param_scheduler = {name: [dict(type='ConstantLR', factor=factor, by_epoch=False, end=50)]
                           for name, factor in (('tiny', 0.5), ('small', 1.), ('base', 0.1))}
    runner, watch = Runner.from_cfg(cfg), Watch()
    runner.register_hook(watch)
    runner.train()
    assert watch.rates[0]['tiny.lr'][0] == pytest.approx(1.5e-3) and watch.rates[0]['small.lr'][0] == 7e-3
    assert watch.rates[0]['base.lr'][0] == pytest.approx(3e-4)
    assert [wrapper.clip_grad_kwargs['max_norm'] for wrapper in runner.optim_wrapper.values()] == [0.5, 9., 0.5]
    updates = [next(iter(wrapper.optimizer.state.values()))['step'] for wrapper in runner.optim_wrapper.values()]
    assert updates == [7, 14, 7]


@pytest.mark.slow
def test_bfloat16_is_that_of_a_run_alone(teacher_file, image_folder, tmp_path):
    amp = dict(optim_wrapper=dict(type='CPUAmpOptimWrapper'))
    together = train(multi_cfg(teacher_file), image_folder, tmp_path / 'together', epochs=1, **amp)
    alone = train(single_cfgs(teacher_file)['small'], image_folder, tmp_path / 'alone', epochs=1, **amp)
    assert_same_as_alone('small', alone, together)


@pytest.mark.parametrize('settings, message', [
    (dict(students=dict(huge=dict())), "optim_wrapper.students names 'huge'; the students are tiny, small, base."),
    (dict(students=dict(base=dict(type='CPUAmpOptimWrapper'))), "Students 'tiny' and 'base' have an optim_wrapper of "),
])
def test_optimisers_that_cannot_be(teacher_file, image_folder, tmp_path, settings, message):
    with pytest.raises(UserInputError) as caught:
        train(multi_cfg(teacher_file), image_folder, tmp_path, optim_wrapper=settings)
    assert message in str(caught.value)


def test_constructor_and_several_students_belong_together(teacher_file, image_folder, tmp_path):
    cfg = runner_cfg(multi_cfg(teacher_file), image_folder, tmp_path)
    del cfg.optim_wrapper['constructor']
    with pytest.raises(UserInputError, match="set optim_wrapper.constructor='StudentOptimWrapperConstructor'"):
        Runner.from_cfg(cfg).train()
    with pytest.raises(UserInputError, match='optimisers for a MultiStudent, not for a MIMHD'):
        train(single_cfgs(teacher_file)['tiny'], image_folder, tmp_path,
              optim_wrapper=dict(constructor='StudentOptimWrapperConstructor'))


@pytest.mark.slow
def test_two_processes_learn_what_two_learn_alone(teacher_file, image_folder, tmp_path):
    """Gradients are exchanged student by student, masks differ between processes: on gloo, to the bit, too."""
    models = dict(together=multi_cfg(teacher_file), tiny=single_cfgs(teacher_file)['tiny'])
    for name, model in models.items():
        cfg = runner_cfg(model, image_folder, tmp_path / name, epochs=1)
        cfg.setdefault('runner_type', 'mimhd_mm.ResumableRunner')  # as tools/train.py does
        cfg.merge_from_dict(dict(launcher='pytorch', randomness=dict(diff_rank_seed=True), model_wrapper_cfg=dict(
            type='MMDistributedDataParallel', device_ids=None)))
        cfg.dump(tmp_path / f'{name}.py')
    (tmp_path / 'train.py').write_text(TRAIN_ON_GLOO)
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', 'train.py',
         *(f'{name}.py' for name in models)], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'CUDA_VISIBLE_DEVICES': ''})
    assert done.returncode == 0, done.stderr
    together, tiny = (load_checkpoint_safely(tmp_path / name / 'epoch_1.pth')['state_dict'] for name in models)
    assert all(torch.equal(value, together[f'students.tiny.{key}']) for key, value in tiny.items())
    assert {key.split('.')[1] for key in together} == {'tiny', 'small', 'base'}


def test_processes_want_the_runner_of_students(teacher_file, image_folder, tmp_path):
    model = build(multi_cfg(teacher_file))
    wrapped = DistributedDataParallel.__new__(DistributedDataParallel)
    torch.nn.Module.__init__(wrapped)
    wrapped.module = model
    with pytest.raises(UserInputError, match="put runner_type='mimhd_mm.MultiStudentRunner' into the config"):
        build_optim_wrapper(wrapped, dict(constructor='StudentOptimWrapperConstructor'))


# ---- the model -------------------------------------------------------------------------------------------------------
def test_losses_have_the_students_names_and_are_those_alone(multi, teacher_file):
    images = torch.randn(2, 3, 32, 32)
    torch.manual_seed(5)
    found = multi.train()(images, mode='loss')
    for name, student in multi.students.items():
        alone = build(single_cfgs(teacher_file)[name]).train()
        alone.load_state_dict(student.state_dict())
        torch.manual_seed(5)
        for key, value in alone(images, mode='loss').items():
            assert torch.equal(found.pop(f'{name}.{key}'), value)
    assert not found


def test_two_views_go_to_students_and_teacher(multi):
    seen, teachers = torch.randn(2, 2, 3, 32, 32)
    images, target, chosen = multi.teach([seen, teachers])
    assert images is seen and chosen is None
    assert all(torch.equal(*pair) for pair in zip(target, multi.target_generator(teachers)))


def test_features_by_student(multi):
    features = multi.eval()(torch.randn(2, 3, 32, 32))
    assert {name: tuple(value[-1].shape) for name, value in features.items()} == dict(
        tiny=(2, 17, 24), small=(2, 17, 32), base=(2, 17, 24))


def test_gradients_reach_what_learns_and_nothing_else(multi):
    sum(multi.train()(torch.randn(2, 3, 32, 32), mode='loss').values()).backward()
    for name, parameter in multi.named_parameters():
        assert (parameter.grad is None) != parameter.requires_grad, name
    assert not any(part.training for part in multi.target_generator.modules())


def test_loading_forgives_exactly_what_is_not_saved(multi):
    state = multi.state_dict()
    multi.load_state_dict(state, strict=True)
    del state['students.tiny.backbone.cls_token']
    with pytest.raises(RuntimeError, match='students.tiny.backbone.cls_token'):
        multi.load_state_dict(state, strict=True)


@pytest.mark.parametrize('changes, message', [
    (dict(students={}), 'MultiStudent has no student'),
    (dict(students={'a.b': dict()}), "A student cannot be called 'a.b'"),
    (dict(students=dict(keys=dict())), "A student cannot be called 'keys'"),
    (dict(students=dict(a=dict(target_generator=dict()))), "Student 'a' has a target_generator of its own"),
    (dict(students=dict(a=dict(data_preprocessor=dict()))), "Student 'a' has a data_preprocessor of its own"),
    (dict(students=dict(a=dict(type='DMAE'))), "Student 'a' is a MIMHD or a TinyMIM, not 'DMAE'"),
    (dict(students=dict(a=dict(backbone=dict(type='RelationViT', arch=STUDENT, img_size=64, patch_size=8),
                               head=dict(type='RelationDistillHead')))),
     "Student 'a': The student has 8 x 8 patches and the teacher 4 x 4"),
])
def test_bad_configs_give_one_sentence(teacher_file, changes, message):
    with pytest.raises(UserInputError) as caught:
        MODELS.build(multi_cfg(teacher_file, **changes))
    sentence = str(root_cause(caught.value))
    assert message in sentence and '\n' not in sentence and not sentence.startswith('class `')


def test_a_file_without_decoder_will_do_where_nobody_reconstructs(teacher_file, tmp_path):
    content = torch.load(teacher_file, weights_only=True)['state_dict']
    torch.save(dict(state_dict={key: value for key, value in content.items() if key.startswith('backbone.')}),
               tmp_path / 'encoder.pth')
    cfg = multi_cfg(tmp_path / 'encoder.pth')
    with pytest.raises(UserInputError, match='holds an encoder but no decoder'):
        build(cfg)
    build(dict(cfg, students=dict(base=cfg['students']['base'])))


# ---- random numbers --------------------------------------------------------------------------------------------------
def alone_and_beside(disturb) -> tuple:
    """What two streams draw with a disturbance between two draws, and what one generator does, for each."""
    sizes = dict(a=3, b=5)
    alone = {}
    for name, size in sizes.items():
        torch.manual_seed(1)
        first = torch.rand(size)
        disturb()
        alone[name] = first, torch.rand(size)
    torch.manual_seed(1)
    streams, drawn = RandomStreams(['a', 'b']), {'a': [], 'b': []}
    for _ in range(2):
        for name, size in sizes.items():
            with streams.of(name):
                drawn[name].append(torch.rand(size))
        disturb()
    return alone, drawn


@pytest.mark.parametrize('disturb', [
    lambda: None, lambda: torch.empty((), dtype=torch.int64).random_(), lambda: torch.rand(MOST_WORDS),
    lambda: torch.manual_seed(9)], ids=['nothing', 'loader', 'most', 'seed'])
def test_streams_share_what_others_draw(disturb):
    alone, beside = alone_and_beside(disturb)
    for name in alone:
        assert all(torch.equal(*pair) for pair in zip(alone[name], beside[name])), name


@pytest.mark.parametrize('disturb', [lambda: torch.rand(10 * MOST_WORDS), lambda: torch.randn(1)],
                         ids=['many', 'half a pair'])
def test_streams_go_on_from_what_cannot_be_counted(disturb):
    """The first is as alone all the same."""
    alone, beside = alone_and_beside(disturb)
    assert torch.equal(alone['a'][1], beside['a'][1])
    assert torch.equal(beside['a'][1], beside['b'][1][:3])


def test_offset_of_a_gpus_generator():
    state = torch.tensor([7, 40]).view(torch.uint8)
    assert move_offset(state, 8).view(torch.int64).tolist() == [7, 48]
