"""Registries of scope ``mimhd_mm``; what is registered here can be named from mmpretrain configs too.

A class registered with one of these answers to two names: ``mimhd_mm.X`` from every scope (mmseg's included),
and plain ``X`` under mmpretrain's default scope, as that project's own plugins do it.
"""
from mmengine.registry import Registry
from mmpretrain import registry as mmpretrain_registry


class PluginRegistry(Registry):
    """A registry that shares its names with one of the host project, mmpretrain.

    What is registered here is registered there too. What is not found here is looked up there: mmengine gives the scope
    ``mimhd_mm`` to every type of a config that is inherited through ``_base_ = 'mimhd_mm::...'``, and most of those
    types are mmpretrain's.

    Args:
        mirror (Registry): The registry of the host project.
    """

    def __init__(self, *args, mirror: Registry, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.mirror = mirror

    def _register_module(self, module, module_name=None, force=False) -> None:
        super()._register_module(module=module, module_name=module_name, force=force)
        self.mirror._register_module(module=module, module_name=module_name, force=force)

    def get(self, key: str):
        """The class of that name, of this package or of the host project, or None."""
        self.import_from_location()
        scope, name = self.split_scope_key(key)
        if scope in (None, self.scope):
            return self._module_dict.get(name) or self.mirror.get(name)
        return super().get(key)


def _plugin(kind: str, location: str) -> PluginRegistry:
    mirror = getattr(mmpretrain_registry, kind)
    return PluginRegistry(
        mirror.name, parent=mirror.parent, scope='mimhd_mm', locations=[location], mirror=mirror)


MODELS = _plugin('MODELS', 'mimhd_mm.models')
DATASETS = _plugin('DATASETS', 'mimhd_mm.datasets')
TRANSFORMS = _plugin('TRANSFORMS', 'mimhd_mm.datasets')
HOOKS = _plugin('HOOKS', 'mimhd_mm.engine')
OPTIM_WRAPPERS = _plugin('OPTIM_WRAPPERS', 'mimhd_mm.engine')
OPTIM_WRAPPER_CONSTRUCTORS = _plugin('OPTIM_WRAPPER_CONSTRUCTORS', 'mimhd_mm.engine')

# kinds of which this package registers nothing, for configs that are inherited through `mimhd_mm::`
for _kind in ('RUNNERS', 'LOOPS', 'LOG_PROCESSORS', 'OPTIMIZERS', 'PARAM_SCHEDULERS', 'DATA_SAMPLERS', 'METRICS',
              'EVALUATORS', 'VISUALIZERS', 'VISBACKENDS', 'WEIGHT_INITIALIZERS', 'MODEL_WRAPPERS', 'TASK_UTILS'):
    globals()[_kind] = _plugin(_kind, 'mimhd_mm.engine')
