"""Compiled networks train as uncompiled ones do, and only where they are asked for."""
import pytest
import torch
from mmengine.runner import Runner

from mimhd_mm.compat import load_checkpoint_safely
from mimhd_mm.engine.hooks.compile_hook import compile_networks
from mimhd_mm.errors import UserInputError

from ...test_models.test_mimhd import runner_cfg


def final_state(teacher_file, image_folder, folder, hook=None) -> tuple:
    """Parameters after one epoch, and how many graphs were compiled."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    cfg = runner_cfg(teacher_file, image_folder, folder, epochs=1)
    if hook:
        cfg.default_hooks.compile = hook
    Runner.from_cfg(cfg).train()
    return load_checkpoint_safely(folder / 'epoch_1.pth')['state_dict'], torch._dynamo.utils.counters['stats'].get(
        'unique_graphs', 0)


@pytest.fixture(scope='module')
def eager(teacher_file, image_folder, tmp_path_factory):
    return final_state(teacher_file, image_folder, tmp_path_factory.mktemp('eager'))[0]


@pytest.mark.slow
def test_the_same_training(eager, teacher_file, image_folder, tmp_path):
    """Traced by the compiler but run by PyTorch's own kernels, it is the same to the bit."""
    hook = dict(type='CompileHook', devices=('cpu', ), backend='eager')
    compiled, graphs = final_state(teacher_file, image_folder, tmp_path, hook)
    assert graphs >= 3  # teacher, student, decoder
    assert compiled.keys() == eager.keys()
    assert all(torch.equal(value, eager[key]) for key, value in compiled.items())


@pytest.mark.slow
def test_nothing_is_compiled_on_a_cpu_unless_asked(eager, teacher_file, image_folder, tmp_path):
    compiled, graphs = final_state(teacher_file, image_folder, tmp_path, dict(type='CompileHook'))
    assert graphs == 0
    assert all(torch.equal(value, eager[key]) for key, value in compiled.items())


def test_other_models_are_refused():
    with pytest.raises(UserInputError, match='not a Linear'):
        compile_networks(torch.nn.Linear(1, 1))
