"""Importing the package leaves the loaders of mmengine and torch alone; safe loading ends where it is left."""
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.runner import CheckpointLoader, load_checkpoint
from torch import nn

import mimhd_mm
from mimhd_mm import registry
from mimhd_mm.compat import load_checkpoint_safely
from mimhd_mm.engine.launch import run_tool
from mimhd_mm.engine.resume.safe_loading import OTHERS, load_from_elsewhere, load_from_local, safe_loading
from mimhd_mm.errors import UserInputError

KINDS = {name: value for name, value in vars(registry).items() if isinstance(value, registry.PluginRegistry)}


@pytest.fixture
def with_code(tmp_path):
    """A checkpoint that holds a function, which mmengine's own loaders unpickle."""
    path = tmp_path / 'code.pth'
    torch.save(dict(state_dict=nn.Linear(2, 2).state_dict(), meta=dict(function=np.linalg.norm)), path)
    return path


@pytest.mark.slow
def test_an_import_changes_no_loader():
    code = (
        'import torch, mmpretrain\n'
        'from mmengine.runner import CheckpointLoader\n'
        'listed = lambda: getattr(torch.serialization, "get_safe_globals", list)()\n'
        'schemes, types = dict(CheckpointLoader._schemes), set(listed())\n'
        'import mimhd_mm, mimhd_mm.downstream.evaluate, mimhd_mm.downstream.export\n'
        'assert dict(CheckpointLoader._schemes) == schemes\n'
        'added = set(listed()) - types\n'
        'assert all(one.__module__.startswith("torch.") for one in added), added\n')  # torch lists some when they load
    subprocess.run([sys.executable, '-W', 'ignore', '-c', code], check=True, cwd=Path(mimhd_mm.__file__).parents[1])


def test_safe_loading_ends_with_its_block(with_code):
    before = CheckpointLoader._schemes
    with pytest.raises(UserInputError, match='refused'), safe_loading():
        with safe_loading():
            pass
        load_checkpoint(nn.Linear(2, 2), str(with_code))
    assert CheckpointLoader._schemes is before
    load_checkpoint(nn.Linear(2, 2), str(with_code))  # the host's own loader takes it, as without this package


def test_safe_loading_covers_every_loader_of_mmengine():
    with safe_loading():
        found = {prefix: loader.__module__ for prefix, loader in CheckpointLoader._schemes.items()}
        assert CheckpointLoader._schemes['modelzoo://'] is load_from_elsewhere
        assert CheckpointLoader._schemes[''] is load_from_local
    assert set(OTHERS) < set(found) and set(found.values()) == {load_from_local.__module__}


def test_a_tool_runs_under_safe_loading(with_code, capsys):
    with pytest.raises(SystemExit) as caught:
        run_tool(lambda _: load_checkpoint(nn.Linear(2, 2), str(with_code)))
    assert str(caught.value).startswith('error: ') and str(with_code) in str(caught.value)


@pytest.mark.skipif(not hasattr(torch.serialization, 'get_safe_globals'), reason='torch < 2.4 has no such list')
def test_reading_a_checkpoint_leaves_torch_as_it_was(tmp_path):
    buffer = HistoryBuffer()
    buffer.update(2.)
    torch.save(dict(loss=buffer, best=np.float32(3.)), tmp_path / 'log.pth')
    kept = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals([HistoryBuffer])  # of the host, and one of ours
    try:
        before = set(torch.serialization.get_safe_globals())
        assert load_checkpoint_safely(tmp_path / 'log.pth')['loss'].current() == 2.
        assert set(torch.serialization.get_safe_globals()) == before
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(kept)


@pytest.mark.parametrize('kind', KINDS)
def test_registries_hold_what_they_say(kind):
    """The classes of a kind are below its location, and the comment above the kind says whether there are any."""
    own = [module for module in KINDS[kind].module_dict.values() if module.__module__.startswith('mimhd_mm.')]
    location, = KINDS[kind]._locations
    assert all(module.__module__.startswith(location + '.') for module in own)
    lines = Path(registry.__file__).read_text().split('# kinds of which ')
    assert (f'\n{kind} = ' in lines[1]) == bool(own) and (f'\n{kind} = ' in lines[2]) == (not own)
