"""Keep parts of a model out of its checkpoints, and do not miss them when one is loaded."""
from collections.abc import Callable

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

    def remember(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs):
        place['prefix'] = prefix

    def forgive(_, incompatible):
        prefix = place['prefix']
        incompatible.missing_keys[:] = [key for key in incompatible.missing_keys
                                        if not (key.startswith(prefix) and kept_out(key[len(prefix):]))]

    place = dict(prefix='')  # of the module in the model that is being loaded; hooks before loading are told it
    module._register_state_dict_hook(drop)
    module._register_load_state_dict_pre_hook(remember)
    module.register_load_state_dict_post_hook(forgive)
