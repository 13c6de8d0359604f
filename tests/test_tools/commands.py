"""Call the command line tools in this process: starting Python and importing torch anew takes seconds a call."""
import importlib
import importlib.util
from pathlib import Path

import pytest

from mimhd_mm.engine.launch import run_tool

ROOT = Path(__file__).parents[2]


def load_tool(name: str):
    """The module of ``tools/<name>``; of the laboratory, by its own name, where that begins with ``lab.``."""
    if name.startswith('lab.'):
        return importlib.import_module(name)
    path = ROOT / 'tools' / name
    spec = importlib.util.spec_from_file_location('tool_' + path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(name: str, *arguments) -> None:
    """Call a tool that is to succeed."""
    load_tool(name).main([str(argument) for argument in arguments])


def error_of(name: str, *arguments) -> str:
    """Call a tool that is to refuse its input, and return its one sentence.

    ``sys.exit(text)`` prints the text to stderr and ends with status 1.
    """
    with pytest.raises(SystemExit) as caught:
        run_tool(load_tool(name).main, [str(argument) for argument in arguments])
    assert isinstance(caught.value.code, str), caught.value.code
    assert caught.value.code.startswith('error: ')
    assert '\n' not in caught.value.code
    return caught.value.code
