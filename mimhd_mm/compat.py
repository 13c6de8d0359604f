"""What this package asks of the stack below it: versions, config look-up, safe loading."""
import argparse
import os
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mmcv
import mmengine
import numpy as np
import torch
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.utils import digit_version
from mmengine.utils.package_utils import is_installed

from .errors import UserInputError

#: import name -> (lowest version, first version that is too new); both stacks that the tests run on are inside
VERSIONS = {
    'torch': ('2.1.0', '2.13.0'),
    'mmengine': ('0.10.7', '0.11.0'),
    'mmcv': ('2.1.0', '2.4.0'),
    'mmpretrain': ('1.2.0', '1.4.0'),
}


def check_versions() -> None:
    """Compare the installed packages with :data:`VERSIONS`.

    Raises:
        ImportError: One sentence with the package, the version that was found and those that work.
    """
    import mmpretrain
    for module in (torch, mmengine, mmcv, mmpretrain):
        low, high = VERSIONS[module.__name__]
        found = digit_version(module.__version__.split('+')[0])
        if not digit_version(low) <= found < digit_version(high):
            raise ImportError(
                f'mimhd_mm needs {module.__name__}>={low},<{high} but found {module.__version__}; install the '
                f'versions of requirements/run.txt (or requirements/openmmlab.txt) into this environment.')


def register_config_packages() -> None:
    """Make ``_base_ = 'mimhd_mm::...'`` and ``'mmseg::...'`` resolve, on both stacks.

    mmengine resolves a ``package::`` prefix by a fixed list of packages. Our own name is not in it, and the list
    maps ``mmseg`` to a distribution name that is not installed where the continued packages are. For ours it names
    a module, so that mmengine takes the folder that is imported; by the distribution, the original mmengine looks
    for a development install beside the other packages.
    """
    MODULE2PACKAGE.setdefault('mimhd_mm', 'mimhd_mm.version')
    if not is_installed(MODULE2PACKAGE['mmseg']) and is_installed('onedl-mmsegmentation'):
        MODULE2PACKAGE['mmseg'] = 'onedl-mmsegmentation'


def load_checkpoint_safely(path, map_location: Any = 'cpu') -> Any:
    """``torch.load`` with ``weights_only=True``, for checkpoints that mmengine wrote too.

    torch's list of types that it unpickles is the same before and after.

    Args:
        path (str | Path): The file.
        map_location: Where tensors go, as in ``torch.load``. Defaults to ``'cpu'``.

    Raises:
        pickle.UnpicklingError: If the file holds anything that could execute code.
        UserInputError: If it unpacks to more than its own size, or a tensor claims to be larger than the file.
    """
    size = os.path.getsize(path)
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError):
        unpacked = 0  # torch's old format, or damaged: for torch to say
    if unpacked > size:  # torch.save does not compress
        raise UserInputError(f'{str(path)!r} has {size} bytes and unpacks to {unpacked}, which checkpoints do not: it '
                             f'was refused; save it anew with torch.save.')
    if not hasattr(torch.serialization, 'add_safe_globals'):  # torch < 2.4 has no list of safe types
        content = torch.load(path, map_location=map_location, pickle_module=_RestrictedPickle)
    else:
        with _allowed_globals():
            content = torch.load(path, map_location=map_location, weights_only=True)
    # a number repeated without end takes no room in a file, and older versions of torch believe any size of a storage
    largest = max((max(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())
                   for tensor in _tensors_in(content) if tensor.layout == torch.strided), default=0)
    if largest > size:
        raise UserInputError(f'{str(path)!r} has {size} bytes and a tensor of {largest}: it was refused; save the '
                             f'tensors anew, each with memory of its own.')
    return content


def _tensors_in(content: Any) -> Iterator[torch.Tensor]:
    """The tensors in dicts, lists and tuples of dicts, lists and tuples; each container once, however they nest."""
    waiting, seen = [content], set()
    while waiting:
        item = waiting.pop()
        if isinstance(item, torch.Tensor):
            yield item
        elif isinstance(item, (dict, list, tuple)) and id(item) not in seen:
            seen.add(id(item))
            waiting.extend(item.values() if isinstance(item, dict) else item)


class _RestrictedPickle:
    """Stands in for the module ``pickle``: unpickles tensors, plain values and what mmengine's checkpoints hold."""

    SAFE = {
        'collections': ('OrderedDict', 'deque'), 'builtins': ('set', 'slice'), '_codecs': ('encode', ),
        'torch': ('Size', 'device', 'float16', 'bfloat16', 'float32', 'float64', 'int32', 'int64', 'uint8', 'bool'),
        'torch._utils': ('_rebuild_tensor', '_rebuild_tensor_v2', '_rebuild_parameter'),
        'argparse': ('Namespace', ), 'numpy': ('dtype', 'ndarray'), 'numpy.core.multiarray': ('scalar', '_reconstruct'),
        'numpy._core.multiarray': ('scalar', '_reconstruct'), 'mmengine.logging.history_buffer': ('HistoryBuffer', ),
    }

    class Unpickler(pickle.Unpickler):

        def find_class(self, module: str, name: str) -> object:
            module = {'__builtin__': 'builtins'}.get(module, module)  # its name in pickle's protocol 2
            if (module, name) == ('builtins', 'getattr'):
                return _history_buffer_method
            if name not in _RestrictedPickle.SAFE.get(module, ()):
                raise pickle.UnpicklingError(f'{module}.{name} is no tensor and no plain value')
            return super().find_class(module, name)

    @classmethod
    def load(cls, file, **kwargs) -> object:
        """What torch's reader of the old file format calls."""
        return cls.Unpickler(file, **kwargs).load()


@contextmanager
def _allowed_globals() -> Iterator[None]:
    """Let torch unpickle, inside, the harmless types that checkpoints hold beside tensors.

    They are mmengine's log buffers, numpy's scalars (mmseg's metrics leave some) and the ``argparse`` options that MAE,
    DINO, CAE and TinyMIM keep beside the weights.
    """
    from mmengine.logging.history_buffer import HistoryBuffer
    core = np._core if hasattr(np, '_core') else np.core
    dtypes = {type(np.dtype(kind)) for kind in ('f2', 'f4', 'f8', 'i4', 'i8', 'u1', 'u4', '?')}
    before = list(torch.serialization.get_safe_globals())
    torch.serialization.add_safe_globals([
        argparse.Namespace, HistoryBuffer, np.dtype, np.ndarray, core.multiarray.scalar,
        core.multiarray._reconstruct, *dtypes, (_history_buffer_method, 'builtins.getattr')])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _history_buffer_method(owner: object, name: str) -> object:
    """What stands for ``getattr`` in a checkpoint, where only pickled log buffers use it, to name their statistics."""
    from mmengine.logging.history_buffer import HistoryBuffer
    if owner is not HistoryBuffer or name.startswith('__'):
        raise pickle.UnpicklingError(f'attribute {name!r} of {owner!r} was asked for')
    return getattr(owner, name)
