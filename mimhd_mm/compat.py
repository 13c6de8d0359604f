"""What this package asks of the stack below it: versions, config look-up, safe loading."""
import argparse
import pickle
from typing import Any

import mmcv
import mmengine
import numpy as np
import torch
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.utils import digit_version
from mmengine.utils.package_utils import is_installed

#: import name -> (lowest version, first version that is too new)
VERSIONS = {
    'torch': ('2.1.0', '3.0.0'),
    'mmengine': ('0.10.0', '1.0.0'),
    'mmcv': ('2.0.1', '2.4.0'),
    'mmpretrain': ('1.2.0', '2.0.0'),
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


def load_checkpoint_safely(path) -> Any:
    """``torch.load`` with ``weights_only=True`` onto the CPU, for checkpoints that mmengine wrote too.

    The types are registered anew each time: mmengine's own loader takes some of them off the list when it is done.

    Args:
        path (str | Path): The file.

    Raises:
        pickle.UnpicklingError: If the file holds anything that could execute code.
    """
    register_safe_globals()
    if not hasattr(torch.serialization, 'add_safe_globals'):  # torch < 2.4 has no list of safe types
        return torch.load(path, map_location='cpu', pickle_module=_RestrictedPickle)
    return torch.load(path, map_location='cpu', weights_only=True)


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


def register_safe_globals() -> None:
    """Allow the harmless types that checkpoints hold when tensors alone are unpickled.

    Of mmengine's, and the options that MAE, DINO, CAE and TinyMIM keep beside the weights, an object without code.

    Without them ``torch.load(weights_only=True)`` refuses any checkpoint whose message hub has seen a numpy
    scalar (mmseg's metrics leave some), and mmengine then falls back to unpickling whatever is in the file.
    """
    if not hasattr(torch.serialization, 'add_safe_globals'):  # torch < 2.4
        return
    from mmengine.logging.history_buffer import HistoryBuffer
    core = np._core if hasattr(np, '_core') else np.core
    dtypes = {type(np.dtype(kind)) for kind in ('f2', 'f4', 'f8', 'i4', 'i8', 'u1', 'u4', '?')}
    torch.serialization.add_safe_globals([
        argparse.Namespace, HistoryBuffer, np.dtype, np.ndarray, core.multiarray.scalar,
        core.multiarray._reconstruct, *dtypes,
        (_history_buffer_method, 'builtins.getattr')])


def _history_buffer_method(owner: object, name: str) -> object:
    """What stands for ``getattr`` in a checkpoint, where only pickled log buffers use it, to name their statistics."""
    from mmengine.logging.history_buffer import HistoryBuffer
    if owner is not HistoryBuffer or name.startswith('__'):
        raise pickle.UnpicklingError(f'attribute {name!r} of {owner!r} was asked for')
    return getattr(owner, name)
