"""Registries of scope ``mimhd_mm``, one for every kind of part that a config can name.

A class registered with one of these has two names: ``mimhd_mm.X`` in every scope, mmseg's included, and ``X`` under
mmpretrain's default scope. ``BackboneLayerDecayConstructor``, ``StudentOptimWrapperConstructor`` and
``SegPanelVisualizer`` are registered with mmengine's root registry too, where every scope finds them; the last one
there alone.
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
    """The registry of a kind; ``location`` is the package whose import registers the classes."""
    mirror = getattr(mmpretrain_registry, kind)
    return PluginRegistry(
        mirror.name, parent=mirror.parent, scope='mimhd_mm', locations=[location], mirror=mirror)


# kinds of which this package registers classes
MODELS = _plugin('MODELS', 'mimhd_mm.models')
DATASETS = _plugin('DATASETS', 'mimhd_mm.datasets')
TRANSFORMS = _plugin('TRANSFORMS', 'mimhd_mm.datasets')
HOOKS = _plugin('HOOKS', 'mimhd_mm.engine')
DATA_SAMPLERS = _plugin('DATA_SAMPLERS', 'mimhd_mm.datasets')
RUNNERS = _plugin('RUNNERS', 'mimhd_mm.engine')
LOOPS = _plugin('LOOPS', 'mimhd_mm.engine')
OPTIMIZERS = _plugin('OPTIMIZERS', 'mimhd_mm.engine')
OPTIM_WRAPPERS = _plugin('OPTIM_WRAPPERS', 'mimhd_mm.engine')
OPTIM_WRAPPER_CONSTRUCTORS = _plugin('OPTIM_WRAPPER_CONSTRUCTORS', 'mimhd_mm.engine')
MODEL_WRAPPERS = _plugin('MODEL_WRAPPERS', 'mimhd_mm.engine')

# kinds of which it registers none; a config inherited through `_base_ = 'mimhd_mm::...'` looks them up in this scope
LOG_PROCESSORS = _plugin('LOG_PROCESSORS', 'mimhd_mm.engine')
PARAM_SCHEDULERS = _plugin('PARAM_SCHEDULERS', 'mimhd_mm.engine')
METRICS = _plugin('METRICS', 'mimhd_mm.engine')
EVALUATORS = _plugin('EVALUATORS', 'mimhd_mm.engine')
VISUALIZERS = _plugin('VISUALIZERS', 'mimhd_mm.engine')
VISBACKENDS = _plugin('VISBACKENDS', 'mimhd_mm.engine')
WEIGHT_INITIALIZERS = _plugin('WEIGHT_INITIALIZERS', 'mimhd_mm.engine')
TASK_UTILS = _plugin('TASK_UTILS', 'mimhd_mm.engine')
