"""Choose the device to measure on and read its free memory."""
from collections.abc import Sequence
from pathlib import Path

import torch

from ..errors import UserInputError


def choose(names: Sequence[str], known: Sequence[str], what: str) -> list[str]:
    """``names`` if all of them are known.

    Raises:
        UserInputError: If one is not.
    """
    for name in names:
        if name not in known:
            raise UserInputError(f'Unknown {what} {name!r}; choose from {", ".join(known)}.')
    return list(names)


def find_device(name: str | None) -> torch.device:
    """``'cpu'`` or ``'cuda'``; None is a GPU where there is one.

    Raises:
        UserInputError: If the device is not there.
    """
    name = name or ('cuda' if torch.cuda.is_available() else 'cpu')
    choose([name.split(':')[0]], ('cpu', 'cuda'), 'device')
    if name.startswith('cuda') and not torch.cuda.is_available():
        raise UserInputError(f'--device {name} needs a GPU, and none is visible; give --device cpu.')
    return torch.device(name)


def available_bytes(device: torch.device) -> int:
    """Memory that is free for tensors."""
    if device.type == 'cuda':
        return torch.cuda.mem_get_info(device)[0]
    info = Path('/proc/meminfo')
    lines = info.read_text().splitlines() if info.is_file() else []
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith('MemAvailable:')]
    return found[0] if found else 4 * 2 ** 30  # elsewhere 4 GiB: our choice
