"""Fit the tensors of a file to a module: names and shapes are compared before anything is loaded."""
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import UserInputError
from .reading import Tensors

ADVICE = 'give the config that belongs to the checkpoint'


def same_shape(key: str, found: Tensor, expected: Tensor) -> bool:
    """Whether a tensor has the shape that is expected."""
    return found.shape == expected.shape


def compare(expected: Tensors, tensors: Tensors, source: str | Path, advice: str = ADVICE, *,
            may_lack: Callable[[str], bool] = lambda key: False, may_add: Callable[[str], bool] = lambda key: False,
            fits: Callable[[str, Tensor, Tensor], bool] = same_shape) -> None:
    """Compare names and shapes of tensors with those of a network.

    Args:
        expected (dict): The network's state dict.
        tensors (dict): The file's, in the network's names.
        source (str | Path): The file, for messages.
        advice (str): What to do about a difference, for messages.
        may_lack (callable): From a name to whether the file may lack it. Defaults to none.
        may_add (callable): From a name to whether the file may hold it where the network does not. Defaults to none.
        fits (callable): From a name, the file's tensor and the network's to whether they fit. Defaults to
            :func:`same_shape`.

    Raises:
        UserInputError: If a tensor has another shape, is missing or is unknown.
    """
    odd = [key for key, value in expected.items() if key in tensors and not fits(key, tensors[key], value)]
    if odd:
        raise UserInputError(f'{str(source)!r}: {odd[0]!r} is {tuple(tensors[odd[0]].shape)} in the file but '
                             f'{tuple(expected[odd[0]].shape)} in the network; {advice}.')
    missing = [key for key in expected if key not in tensors and not may_lack(key)]
    unknown = [key for key in tensors if key not in expected and not may_add(key)]
    for problem, keys in (('lacks', missing), ('has the unknown', unknown)):
        if keys:
            raise UserInputError(f'{str(source)!r} {problem} {keys[0]!r} ({len(keys)} such tensors); {advice}.')


def load_exactly(module: nn.Module, tensors: Tensors, source: str | Path, advice: str = ADVICE, *,
                 part: bool = False) -> None:
    """Load every tensor that a module saves, and no other, then compare each with what was asked for.

    Args:
        module (nn.Module): The module.
        tensors (dict): The file's, in the module's names.
        source (str | Path): The file, for messages.
        advice (str): What to do where they do not fit, for messages.
        part (bool): Whether the module is a part of the network in the file, whose other tensors are left out.
            Defaults to False.

    Raises:
        UserInputError: If a tensor is missing, unknown or of another shape.
        RuntimeError: If a loaded tensor differs from the file's.
    """
    expected = module.state_dict()
    compare(expected, tensors, source, advice, may_add=lambda key: part)
    module.load_state_dict({key: tensors[key] for key in expected})
    for key, value in module.state_dict().items():
        if not torch.equal(value.cpu(), tensors[key].to(value.dtype).cpu()):
            raise RuntimeError(f'{key!r} differs from {str(source)!r} after loading.')
