"""``FusedAdamW``: the steps of AdamW to rounding, on every torch, and left out where gradients are not finite."""
import copy
import math

import pytest
import torch
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import nn

from mimhd_mm.engine.optimizers import FusedAdamW, GuardedAmpOptimWrapper, GuardedOptimWrapper, fused_adamw

HERE = fused_adamw.has_fused_adamw('cpu')
needs_kernel = pytest.mark.skipif(not HERE, reason='torch before 2.4 has no fused AdamW for a CPU')
SETTINGS = dict(lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05)


def steps_of(model, gradients, kind, **settings):
    """A copy of a model after AdamW's steps by these gradients, and the wrapper."""
    model = copy.deepcopy(model)
    wrapper = build_optim_wrapper(model, dict(
        type='OptimWrapper', optimizer=dict(type=kind, **SETTINGS, **settings), clip_grad=dict(max_norm=3.),
        paramwise_cfg=dict(norm_decay_mult=0., bias_decay_mult=0.)))
    for one in gradients:
        for name, parameter in model.named_parameters():
            parameter.grad = one[name].clone() if name in one else None
        wrapper.step()
    return dict(model.named_parameters()), wrapper


@pytest.fixture
def trained(build_mimhd):
    """A tiny MIM-HD and its gradients for three batches."""
    model, gradients = build_mimhd().train(), []
    for _ in range(3):
        model.zero_grad()
        sum(model(torch.randn(2, 3, 32, 32), mode='loss').values()).backward()
        gradients.append({name: x.grad for name, x in model.named_parameters() if x.grad is not None})
    return model, gradients


def test_steps_are_those_of_adamw(trained):
    """To 1e-6 of a weight and 1e-7: a step is 1e-3 large."""
    before = dict(trained[0].named_parameters())
    expected, _ = steps_of(*trained, 'AdamW')
    found, wrapper = steps_of(*trained, 'mimhd_mm.FusedAdamW')
    assert {group['fused'] for group in wrapper.optimizer.param_groups} == {HERE or None}
    assert len({group['weight_decay'] for group in wrapper.optimizer.param_groups}) == 2
    changed = 0
    for name, value in expected.items():
        changed += not torch.equal(value, before[name])
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-7, msg=lambda text: f'{name}: {text}')
    assert changed == len(trained[1][0]) > 30


def test_without_the_kernel_it_is_adamw_to_the_bit(trained, monkeypatch):
    monkeypatch.setattr(fused_adamw, 'has_fused_adamw', lambda device: False)
    expected, _ = steps_of(*trained, 'AdamW')
    found, wrapper = steps_of(*trained, 'mimhd_mm.FusedAdamW')
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert {group['fused'] for group in wrapper.optimizer.param_groups} == {None}


def test_devices_without_the_kernel_are_told_by_torch():
    assert not fused_adamw.has_fused_adamw('meta')


@needs_kernel
def test_a_resumed_run_keeps_what_its_checkpoint_was_made_with(trained):
    _, plain = steps_of(*trained, 'AdamW')
    _, fused = steps_of(*trained, 'mimhd_mm.FusedAdamW')
    fused.load_state_dict(plain.state_dict())
    assert not any(group['fused'] for group in fused.optimizer.param_groups)


@needs_kernel
@pytest.mark.parametrize('kind', [torch.optim.AdamW, FusedAdamW])
def test_a_resumed_run_takes_scaled_steps(kind):
    """Loss scaling asks the optimiser whether it is fused, which the checkpoint decides."""
    model, made = nn.Linear(4, 2), nn.Linear(4, 2)
    source = OptimWrapper(kind(made.parameters(), **SETTINGS))
    source.update_params(made(torch.randn(3, 4)).square().mean())
    optimizer = FusedAdamW(model.parameters(), **SETTINGS)
    optimizer.load_state_dict(source.optimizer.state_dict())
    wrapper, before = OnCPU(optimizer, 16., None), copy.deepcopy(model.state_dict())
    wrapper.update_params(model(torch.randn(3, 4)).square().mean())
    assert not any(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@needs_kernel
def test_a_fused_checkpoint_where_the_kernel_is_missing(monkeypatch):
    model, made = nn.Linear(4, 2), nn.Linear(4, 2)
    source = OptimWrapper(FusedAdamW(made.parameters(), **SETTINGS))
    source.update_params(made(torch.randn(3, 4)).square().mean())
    monkeypatch.setattr(fused_adamw, 'has_fused_adamw', lambda device: False)
    optimizer = FusedAdamW(model.parameters(), **SETTINGS)
    optimizer.load_state_dict(source.optimizer.state_dict())
    assert not any(group['fused'] for group in optimizer.param_groups)


@needs_kernel
def test_a_step_that_is_not_finite_is_left_out():
    model = nn.Linear(4, 2)
    wrapper = GuardedOptimWrapper(optimizer=FusedAdamW(model.parameters(), **SETTINGS), clip_grad=dict(max_norm=0.5))
    wrapper.update_params(model(torch.randn(3, 4)).square().mean())
    before = [copy.deepcopy(x) for x in (model.state_dict(), wrapper.optimizer.state_dict()['state'])]
    wrapper.update_params(model.weight.sum() * math.nan)
    assert wrapper.skipped == 1
    for one, other in zip(before, (model.state_dict(), wrapper.optimizer.state_dict()['state'])):
        torch.testing.assert_close(other, one, rtol=0, atol=0)


class OnCPU(GuardedAmpOptimWrapper):
    """The wrapper's rules and torch's scaler; the parent's constructor wants a GPU."""

    def __init__(self, optimizer, scale, clip_grad):
        OptimWrapper.__init__(self, optimizer, clip_grad=clip_grad)
        self.skipped = self.skipped_in_a_row = 0
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=scale)
        self._loss_is_finite = self._scale_update_param = None


@needs_kernel
@pytest.mark.parametrize('clip', [None, dict(max_norm=0.5)], ids=['', 'clipped'])
def test_loss_scaling_and_clipping(clip):
    """The fused kernel divides by the scale itself, or comes after the clipping that did; and it leaves a step out."""
    ends = []
    for kind in (torch.optim.AdamW, FusedAdamW):
        torch.manual_seed(0)
        model = nn.Linear(4, 2)
        wrapper = OnCPU(kind(model.parameters(), **SETTINGS), 2. ** 16, clip and dict(clip))
        for _ in range(3):
            wrapper.update_params(model(torch.randn(3, 4)).square().mean())
        before = [copy.deepcopy(x) for x in (model.state_dict(), wrapper.optimizer.state_dict()['state'])]
        wrapper.update_params((model.weight * 1e36).sum())  # overflows by the scale: no fault
        assert wrapper.skipped == 0 and wrapper.loss_scaler.get_scale() == 2. ** 15
        wrapper.update_params(model.weight.sum() * math.nan)
        assert wrapper.skipped == 1 and wrapper.loss_scaler.get_scale() == 2. ** 15
        for one, other in zip(before, (model.state_dict(), wrapper.optimizer.state_dict()['state'])):
            torch.testing.assert_close(other, one, rtol=0, atol=0)
        wrapper.update_params(model(torch.randn(3, 4)).square().mean())
        assert all(float(state['step']) == 4 for state in wrapper.optimizer.state.values())
        ends.append(model.state_dict())
    assert wrapper.optimizer.defaults['fused'] is True
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-6, atol=1e-7)
