"""Losses and gradients that are not finite: the step is left out, named and counted; too many end the run."""
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import Dataset

from mimhd_mm.compat import load_checkpoint_safely
from mimhd_mm.engine.launch import use_amp
from mimhd_mm.engine.optimizers import GuardedAmpOptimWrapper, GuardedCPUAmpOptimWrapper, GuardedOptimWrapper
from mimhd_mm.errors import UserInputError
from mimhd_mm.models import RelationDistillHead
from mimhd_mm.models.relation import QKV
from mimhd_mm.registry import MODELS

from ..conftest import mimhd_cfg, read_config

SCHEDULES = Path(__file__).parents[2] / 'configs' / '_base_' / 'schedules'


def wrapper_for(model, kind=GuardedOptimWrapper, **settings):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    return kind(optimizer=optimizer, **settings)


def state_of(model, wrapper):
    return {**{name: value.clone() for name, value in model.state_dict().items()},
            **{f'{index}.{name}': torch.as_tensor(value).clone() for index, state in
               wrapper.optimizer.state_dict()['state'].items() for name, value in state.items()}}


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_an_ordinary_run_is_that_of_mmengine():
    """To the bit, clipping and accumulation included."""
    states = []
    for kind in (OptimWrapper, GuardedOptimWrapper):
        torch.manual_seed(0)
        model = nn.Linear(4, 2)
        wrapper = wrapper_for(model, kind, accumulative_counts=2, clip_grad=dict(max_norm=0.5))
        wrapper.initialize_count_status(model, 0, 7)
        for _ in range(7):
            with wrapper.optim_context(model):
                loss = model(torch.randn(3, 4)).square().mean()
            wrapper.update_params(loss)
        states.append(state_of(model, wrapper))
    assert same(*states)


class Waits(TorchDispatchMode):
    """Counts the values that the host waits for."""

    number = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.number += operator.overloadpacket.__name__ == '_local_scalar_dense'
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize('clip, waits', [(None, 1), (dict(max_norm=1.), 2)])
def test_one_wait_a_step_and_none_in_between(clip, waits):
    """mmengine waits for the norm that it clips and logs; the second wait of the two finds the device idle."""
    model = nn.Linear(4, 2)
    wrapper = GuardedOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr=0.1), accumulative_counts=3,
                                  clip_grad=clip)
    for expected in (0, 0, waits):
        loss = model(torch.ones(3, 4)).sum()
        with Waits() as found:
            wrapper.update_params(loss)
        assert found.number == expected


class Root(torch.autograd.Function):
    """A finite value whose gradient is infinite, as that of a square root at 0."""

    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * math.inf


BAD = {'NaN loss': lambda x: x.sum() * math.nan, 'infinite loss': lambda x: x.sum() + math.inf,
       'infinite gradient': lambda x: Root.apply(x).sum(),
       # finite gradients: only the loss tells
       'overflown loss': lambda x: (x * 0 + 1e38).sum() * 10 + x.sum()}


@pytest.mark.parametrize('clip', [None, dict(max_norm=1.), dict(type='value', clip_value=1.)], ids=str)
@pytest.mark.parametrize('fault', BAD)
@pytest.mark.parametrize('kind', [GuardedOptimWrapper, GuardedCPUAmpOptimWrapper])
def test_nothing_is_touched_by_a_bad_step(kind, fault, clip):
    """Neither weights nor moments nor the step count of AdamW; the next good step is what it would have been."""
    ends = []
    for fault_at in (None, 1):
        torch.manual_seed(0)
        model = nn.Linear(4, 2)
        wrapper = wrapper_for(model, kind, clip_grad=clip and dict(clip))
        for step in range(3):
            if step == fault_at:
                before = state_of(model, wrapper)
                wrapper.update_params(BAD[fault](model.weight))
                assert wrapper.just_skipped and same(before, state_of(model, wrapper))
                assert (wrapper.skipped, wrapper.skipped_in_a_row) == (1, 1)
                assert all(parameter.grad is None for parameter in model.parameters())
            wrapper.update_params((model(torch.ones(3, 4)) - step).square().mean())
            assert not wrapper.just_skipped and wrapper.skipped_in_a_row == 0
        ends.append(state_of(model, wrapper))
    assert same(*ends)


@pytest.mark.parametrize('bad', [0, 1, 2])
def test_one_bad_batch_of_an_accumulated_step_is_enough(bad):
    model = nn.Linear(4, 2)
    wrapper = wrapper_for(model, accumulative_counts=3)
    before = state_of(model, wrapper)
    for batch in range(3):
        loss = model(torch.ones(3, 4)).sum()
        wrapper.update_params(loss * math.nan if batch == bad else loss)
    assert wrapper.just_skipped and same(before, state_of(model, wrapper))
    for _ in range(3):
        wrapper.update_params(model(torch.ones(3, 4)).sum())
    assert wrapper.skipped == 1 and not same(before, state_of(model, wrapper))


@pytest.mark.skipif(not hasattr(torch.amp, 'GradScaler'), reason='torch before 2.3 scales on GPUs only')
def test_the_search_for_a_scale_is_no_fault():
    """With the wrapper's rules and torch's scaler; the parent's constructor wants a GPU."""
    class OnCPU(GuardedAmpOptimWrapper):
        def __init__(self, optimizer, scale):
            OptimWrapper.__init__(self, optimizer)
            self.skipped = self.skipped_in_a_row = 0
            self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=scale)
            self._loss_is_finite = self._scale_update_param = None

    model = nn.Linear(4, 2)
    wrapper = OnCPU(torch.optim.SGD(model.parameters(), lr=0.1), scale=2. ** 16)
    start = state_of(model, wrapper)
    for _ in range(3):  # 2^16 overflows: half of it, a quarter of it ...
        wrapper.update_params((model.weight * 1e36).sum())
    assert wrapper.skipped == 0 and wrapper.loss_scaler.get_scale() == 2. ** 13
    assert same(start, state_of(model, wrapper))
    wrapper.update_params(model(torch.ones(1, 4)).sum())
    assert not same(start, state_of(model, wrapper))  # a step was taken

    start = state_of(model, wrapper)
    wrapper.update_params(model.weight.sum() * math.nan)  # a fault, which says nothing about the scale
    assert wrapper.skipped == 1 and wrapper.loss_scaler.get_scale() == 2. ** 13
    assert same(start, state_of(model, wrapper))
    wrapper.loss_scaler.update(1.)
    wrapper.update_params(Root.apply(model.weight).sum())  # no scale to lower
    assert wrapper.skipped == 2


# ---- in a run --------------------------------------------------------------------------------------------------------
class Numbered(Dataset):
    """32 images of noise, each with its number for a path; those of `bad` are infinite."""

    metainfo = {}

    def __init__(self, bad):
        self.bad = bad

    def __len__(self):
        return 32

    def __getitem__(self, index):
        image = torch.from_numpy(np.random.default_rng(index).normal(size=(3, 32, 32)).astype('float32'))
        if index in self.bad:
            image[:] = math.inf
        return dict(inputs=image, data_samples=DataSample(metainfo=dict(img_path=f'image_{index}.jpg')))


def run(teacher_file, work_dir, bad, hook=dict(), accumulate=1, epochs=1):
    """Train the tiny MIM-HD on them, four a batch, in order."""
    optim_wrapper = dict(read_config(SCHEDULES / 'pretrain_mini.py').optim_wrapper,
                         accumulative_counts=accumulate)
    runner = Runner(
        model=mimhd_cfg(teacher_file), work_dir=str(work_dir), optim_wrapper=optim_wrapper,
        train_dataloader=dict(dataset=Numbered(bad), batch_size=4, sampler=dict(type='DefaultSampler', shuffle=False),
                              collate_fn=dict(type='default_collate')),
        train_cfg=dict(by_epoch=True, max_epochs=epochs), default_scope='mmpretrain', log_level='WARNING',
        custom_hooks=[dict(type='NonFiniteHook', **hook)], randomness=dict(seed=0),
        experiment_name=f'{work_dir.parent.name}_{work_dir.name}')
    return runner


def test_a_run_names_the_images_and_goes_on(teacher_file, tmp_path):
    """Batches 2 and 5 of 8 hold a bad image; the end is that of a run without those two batches' steps."""
    runner = run(teacher_file, tmp_path / 'run', bad={9, 20})
    model = runner.train()
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert runner.optim_wrapper.skipped == 2 and runner.message_hub.get_info('skipped_steps') == 2
    records = [json.loads(line) for line in (tmp_path / 'run' / 'non_finite_steps.jsonl').read_text().splitlines()]
    assert [record['iteration'] for record in records] == [3, 6]
    assert records[0]['batches'][0]['images'] == [f'image_{index}.jpg' for index in range(8, 12)]
    assert {'loss', 'loss_qk', 'loss_vv', 'loss_rec'} == set(records[0]['batches'][0]['losses'])
    assert records[0]['batches'][0]['losses']['loss'] == 'nan'
    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    assert log.count('Step skipped at iteration') == 2 and "'image_9.jpg'" in log and 'loss_qk nan' in log


def test_only_the_bad_batch_of_an_accumulated_step_is_named(teacher_file, tmp_path):
    run(teacher_file, tmp_path / 'run', bad={9}, accumulate=4).train()
    record, = [json.loads(line) for line in (tmp_path / 'run' / 'non_finite_steps.jsonl').read_text().splitlines()]
    assert record['iteration'] == 4 and record['batches'][0]['images'] == [f'image_{i}.jpg' for i in range(8, 12)]
    assert len(record['batches']) == 1


def test_bad_steps_in_a_row_end_the_run_with_what_was_before_them(teacher_file, tmp_path):
    """Three of eight batches are good; then three bad ones are one too many."""
    whole = run(teacher_file, tmp_path / 'whole', bad=set(range(12, 32)), hook=dict(max_in_a_row=99))
    expected = {name: value.clone() for name, value in whole.train().state_dict().items()}
    runner = run(teacher_file, tmp_path / 'run', bad=set(range(12, 32)), hook=dict(max_in_a_row=3))
    with pytest.raises(UserInputError, match='3 steps in a row') as caught:
        runner.train()
    file = tmp_path / 'run' / 'before_non_finite_iter_6.pth'
    assert str(file) in str(caught.value) and '\n' not in str(caught.value)
    saved = load_checkpoint_safely(file)
    assert saved['meta']['iter'] == 6 and saved['message_hub']['runtime_info']['skipped_steps'] == 3
    assert same(saved['state_dict'], expected) and 'optimizer' in saved
    assert all(value.isfinite().all() for value in saved['state_dict'].values())


def test_weights_that_are_not_finite_are_not_saved(teacher_file, tmp_path):
    runner = run(teacher_file, tmp_path / 'run', bad=set(), hook=dict(max_in_a_row=2))
    runner.model.init_weights()
    runner.model.backbone.cls_token.data[:] = math.nan
    runner.model.init_weights = lambda: None
    with pytest.raises(UserInputError, match='weights are not finite either'):
        runner.train()
    assert not list((tmp_path / 'run').glob('before_*'))


def test_wrong_bound():
    from mimhd_mm.engine.hooks import NonFiniteHook
    with pytest.raises(UserInputError, match='max_in_a_row'):
        NonFiniteHook(max_in_a_row=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason='what --amp gives on a CPU')
@pytest.mark.parametrize('name, amp', [('pretrain_mini', 'mimhd_mm.GuardedCPUAmpOptimWrapper'),
                                       ('schedule_seg-mini', 'mimhd_mm.CPUAmpOptimWrapper')])
def test_amp_keeps_the_guard(name, amp):
    cfg = read_config(SCHEDULES / f'{name}.py')
    use_amp(cfg)
    assert cfg.optim_wrapper.type == amp


# ---- numbers that overflow -------------------------------------------------------------------------------------------
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize('criterion', ['KL', 'L2'])
@pytest.mark.parametrize('matcher', [
    dict(descriptor='column'), dict(descriptor='relation'), dict(descriptor='sample'), dict(descriptor='mean'),
    dict(balance='penalty'), dict(balance='transport'), dict(balance=None), dict(temperature=0.05),
    dict(balance=None, temperature=0.01)], ids=str)
def test_relations_of_huge_numbers_are_finite(dtype, criterion, matcher):
    """q, k and v up to 1e4: their products are 1e8 times the head's width, beyond fp16, and rows are one-hot.

    Under autocast, as mixed precision does it.
    """
    def naive(q, k):
        exp = (q.float() @ k.float().mT).to(dtype).exp()  # older torch multiplies no float16 on a CPU
        return exp / exp.sum(-1, keepdim=True)
    parts = [(torch.randn(2, heads, 17, 8) * 1e4).clamp(-6e4, 6e4).to(dtype) for heads in (3, 3, 3, 4, 4, 4)]
    student = QKV(*(part.requires_grad_() for part in parts[:3]))
    teacher = QKV(*parts[3:])
    assert not naive(student.q, student.k).isfinite().all() and not naive(student.q, student.k).log().isfinite().all()
    head = RelationDistillHead(3, 4, matcher=dict(type='AttentionHeadMatcher', **matcher),
                               loss=dict(type='RelationDistillLoss', criterion=criterion))
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=dtype != torch.float32):
        loss = sum(head.loss(student, teacher).values())
    loss.backward()
    assert loss.isfinite() and all(x.grad.isfinite().all() for x in student)
    assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())


def test_equal_and_opposite_certainty_are_finite():
    """Rows that are one-hot at different places: KL is large and finite."""
    far = torch.zeros(1, 1, 5, 4)
    far[..., 1:, 0] = torch.tensor([1e4, -1e4, 1e4, -1e4])
    head = RelationDistillHead(1, 1, matcher=dict(type='AverageHeadMatcher'), with_cls_token=True)
    student = QKV(*(far.clone().requires_grad_() for _ in range(3)))
    same_relation = head.loss(student, QKV(far, far, far))
    assert all(float(value) == pytest.approx(0, abs=1e-3) for value in same_relation.values())
    opposite = head.loss(student, QKV(-far, far, far))
    assert 1e6 < float(opposite['loss_qk']) < math.inf


def test_models_build_for_amp(teacher_file):
    """A whole step in bf16 with images of 1e4."""
    model = MODELS.build(mimhd_cfg(teacher_file))
    model.init_weights()
    wrapper = wrapper_for(model.train(), GuardedCPUAmpOptimWrapper)
    with wrapper.optim_context(model):
        losses = model(torch.randn(2, 3, 32, 32) * 1e4, mode='loss')
    wrapper.update_params(sum(losses.values()))
    assert not wrapper.skipped and all(value.isfinite().all() for value in model.state_dict().values())
