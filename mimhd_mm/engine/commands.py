"""Run this project's tools in processes of their own and show their progress; read what they logged."""
import collections
import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from ..errors import UserInputError
from ..project import project_root

#: a line of mmengine's training log, by epochs or by iterations
PROGRESS = re.compile(r'(Epoch|Iter)\(train\)\s+\[\s*(\d+)[\]/].*?eta: (\S+(?: days?, \S+)?).*?\sloss: (\S+)')
KEPT_LINES = 30


def tool_command(tool: str, *arguments) -> list[str]:
    """The command that runs ``tools/<tool>``, a Python or shell file, with the current interpreter."""
    starter = ['bash'] if tool.endswith('.sh') else [sys.executable, '-u']
    return [*starter, str(project_root() / 'tools' / tool), *map(str, arguments)]


def call_tool(tool: str, *arguments, total: int | None = None) -> None:
    """Run a tool; print its command and the progress of training, and its last lines if it fails.

    Args:
        tool (str): Path below ``tools``.
        *arguments: Of the tool.
        total (int, optional): Epochs or iterations of the training, for the progress. Defaults to None.

    Raises:
        UserInputError: If the tool ends with another status than 0; with the tool's own error message if there is one.
    """
    command = tool_command(tool, *arguments)
    print('$ ' + shlex.join(['python' if part == sys.executable else part for part in command if part != '-u']),
          flush=True)
    last = collections.deque(maxlen=KEPT_LINES)
    paths = [str(project_root()), os.environ.get('PYTHONPATH')]
    environment = dict(os.environ, PYTHON=sys.executable, PYTHONWARNINGS='ignore',
                       PYTHONPATH=os.pathsep.join(filter(None, paths)))
    with subprocess.Popen(command, env=environment, text=True, errors='replace', stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT) as process:
        for line in process.stdout:
            last.append(line)
            match = PROGRESS.search(line)
            if match:
                unit, number, eta, loss = match.groups()
                of = '' if total is None else f'/{total}'
                print(f'   {unit.lower()} {number:>3}{of}   loss {loss}   {eta} to go', flush=True)
    if process.returncode:
        sys.stderr.writelines(line for line in last if not line.startswith('error: '))
        errors = [line[len('error: '):].strip() for line in last if line.startswith('error: ')]
        said = next((line.strip() for line in reversed(last) if line.strip()), 'nothing')
        errors = errors or [f'tools/{tool} ended with status {process.returncode}; its last line: {said}']
        raise UserInputError(errors[-1])


def logged(work_dir: Path) -> list[dict]:
    """Read the scalars that mmengine logged of a run, in order; incomplete lines are left out."""
    entries = []
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in file.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                entries.append(json.loads(line))
    return entries
