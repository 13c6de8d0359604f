"""Keep parts of a model out of its checkpoints, and do not miss them when one is loaded."""
from typing import Callable

from torch import nn


def keep_out_of_checkpoints(module: nn.Module, kept_out: Callable[[str], bool]) -> None:
    """Leave some of a module's tensors out of ``state_dict()``, and allow exactly those to be missing on loading.

    For frozen weights that come from a file of their own. It holds however the checkpoint is written (mmengine's
    hooks, an EMA hook, ``torch.save``), since it acts on the module.

    Args:
        module (nn.Module): The module.
        kept_out (callable): From a tensor's name inside ``module`` to whether it stays out.
    """

    def drop(_, state_dict, prefix, local_metadata):
        for key in [key for key in state_dict if key.startswith(prefix) and kept_out(key[len(prefix):])]:
            del state_dict[key]

    def forgive(_, incompatible):
        names = [name for name in own_names if kept_out(name)]
        incompatible.missing_keys[:] = [
            key for key in incompatible.missing_keys
            if not any(key == name or key.endswith('.' + name) for name in names)]

    own_names = [name for name, _ in (*module.named_parameters(), *module.named_buffers())]
    module._register_state_dict_hook(drop)
    module.register_load_state_dict_post_hook(forgive)
