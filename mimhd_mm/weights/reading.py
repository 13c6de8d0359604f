"""Read files of weights without executing anything in them."""
import hashlib
import pickle
from pathlib import Path
from typing import Any

from torch import Tensor

from ..compat import load_checkpoint_safely
from ..errors import UserInputError

Tensors = dict[str, Tensor]


def read_tensors(path: str | Path) -> Tensors:
    """The state dict of a file, read with ``weights_only=True`` or as safetensors; never by plain unpickling.

    Raises:
        UserInputError: If the file is missing, truncated, would need unpickling, or holds no tensors.
    """
    return state_dict_of(read_content(path), path)


def read_content(path: str | Path, map_location: Any = 'cpu') -> object:
    """All that a file holds, read as :func:`read_tensors` reads it.

    Args:
        path (str | Path): The file.
        map_location: Where tensors go, as in ``torch.load``; those of safetensors stay on the CPU. Defaults to
            ``'cpu'``.

    Raises:
        UserInputError: If the file is missing, truncated, would need unpickling, or claims to be larger than it is.
    """
    path = Path(path)
    if not path.is_file():
        raise UserInputError(f'No file {str(path)!r}; give the path of a checkpoint that exists.')
    try:
        if path.suffix == '.safetensors':
            from safetensors.torch import load_file
            return load_file(str(path))
        return load_checkpoint_safely(path, map_location)
    except UserInputError:
        raise
    except ImportError as error:
        raise UserInputError(f'Reading {str(path)!r} needs the package safetensors; install it.') from error
    except pickle.UnpicklingError as error:
        raise UserInputError(
            f'{str(path)!r} was refused: it holds more than tensors and plain values, or is damaged, and reading it '
            f'could execute code; save its state dict alone ({_cause(error)}).') from error
    except Exception as error:  # torch and safetensors raise a dozen types for a file that is cut short
        raise UserInputError(f'{str(path)!r} is truncated or not a checkpoint '
                             f'({type(error).__name__}: {_cause(error)}).') from error


def state_dict_of(content: object, path: str | Path) -> Tensors:
    """The tensors at the top of a file's content, or under ``state_dict`` or ``model``, without a ``module.`` before.

    Args:
        content (object): What :func:`read_content` gives.
        path (str | Path): The file, for messages.

    Raises:
        UserInputError: If there are none.
    """
    for key in ('state_dict', 'model'):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)} \
        if isinstance(content, dict) else {}
    if not tensors:
        raise UserInputError(f'{str(path)!r} holds no state dict; expected tensors at the top level, or under '
                             f'`state_dict` or `model`.')
    return {key[7:] if key.startswith('module.') else key: value for key, value in tensors.items()}


def sha256_of(path: str | Path) -> str:
    """Hash of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def _cause(error: Exception) -> str:
    """The line of a loader's message that says what is wrong, without its advice to load unsafely."""
    text = str(error).rpartition('WeightsUnpickler error:')[2]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith('Weights only load failed')]
    return (lines or ['no details'])[0].split(' was not an allowed global')[0][:160]
