"""Write measurements to files, with the hardware and software that they were made on."""
import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from ..errors import UserInputError
from ..project import cpu_model, environment
from ..weights.writing import write_whole


def about(command: str, device: torch.device, **settings) -> dict:
    """Describe how figures were computed: command, device, versions, commit and settings."""
    found = environment()
    if device.type == 'cpu':
        found['device'] = f'{cpu_model()}, {torch.get_num_threads()} thread(s)'
    return dict(command=command, **found, **settings)


def legend(facts: dict[str, object], notes: Sequence[str]) -> str:
    """Facts and notes as a list below a table."""
    return '\n'.join([*(f'- {key}: {value}' for key, value in facts.items()), *(f'- {note}' for note in notes)])


def check_target(path: str | None, suffix: str) -> None:
    """Check before long work that a file can be written.

    Raises:
        UserInputError: If it is there already, has another ending or its folder is missing.
    """
    if path is None:
        return
    if Path(path).suffix != suffix:
        raise UserInputError(f'{path!r} was given for a {suffix} file; let its name end in {suffix}.')
    if Path(path).exists():
        raise UserInputError(f'{path!r} is there already; give another name or remove it.')
    if not Path(path).resolve().parent.is_dir():
        raise UserInputError(f'No folder {str(Path(path).parent)!r} to write {Path(path).name!r} into; make it first.')


def write_json(path: str, content: dict) -> None:
    """Write ``content`` with six significant digits; short lists and dicts are a line each."""
    text = json.dumps(rounded(content), indent=1)
    text = re.sub(r'[\[{][^\[\]{}]*[\]}]', in_a_line, text)
    write_whole(Path(path), text + '\n')


def in_a_line(found: re.Match) -> str:
    """A list or dict of JSON without its line breaks, unless that is a long line."""
    joined = re.sub(r'\n *', ' ', found[0])
    return joined if len(joined) <= 200 else found[0]


def rounded(content):
    """The same with every float, in lists and dicts too, rounded to six significant digits."""
    if isinstance(content, float):
        return float(f'{content:.6g}')
    if isinstance(content, dict):
        return {key: rounded(value) for key, value in content.items()}
    return [rounded(value) for value in content] if isinstance(content, (list, tuple)) else content
