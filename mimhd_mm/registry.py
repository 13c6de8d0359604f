"""Registries of scope ``mimhd_mm``; what is registered here can be named from mmpretrain configs too.

A class registered with one of these answers to two names: ``mimhd_mm.X`` from every scope (mmseg's included),
and plain ``X`` under mmpretrain's default scope, as that project's own plugins do it.
"""
from mmengine import registry as root
from mmengine.registry import Registry
from mmpretrain import registry as mmpretrain_registry


class PluginRegistry(Registry):
    """A registry that also registers its classes in a second one.

    Args:
        mirror (Registry): The registry of the host project in which the plain name shall be known.
    """

    def __init__(self, *args, mirror: Registry, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.mirror = mirror

    def _register_module(self, module, module_name=None, force=False) -> None:
        super()._register_module(module=module, module_name=module_name, force=force)
        self.mirror._register_module(module=module, module_name=module_name, force=force)


def _plugin(name: str, kind: str, location: str) -> PluginRegistry:
    return PluginRegistry(
        name, parent=getattr(root, kind), scope='mimhd_mm', locations=[location],
        mirror=getattr(mmpretrain_registry, kind))


MODELS = _plugin('model', 'MODELS', 'mimhd_mm.models')
DATASETS = _plugin('dataset', 'DATASETS', 'mimhd_mm.datasets')
TRANSFORMS = _plugin('transform', 'TRANSFORMS', 'mimhd_mm.datasets')
HOOKS = _plugin('hook', 'HOOKS', 'mimhd_mm.engine')
OPTIM_WRAPPERS = _plugin('optimizer_wrapper', 'OPTIM_WRAPPERS', 'mimhd_mm.engine')
OPTIM_WRAPPER_CONSTRUCTORS = _plugin('optimizer wrapper constructor', 'OPTIM_WRAPPER_CONSTRUCTORS', 'mimhd_mm.engine')
