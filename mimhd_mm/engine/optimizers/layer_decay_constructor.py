"""``BackboneLayerDecayConstructor``: layer-wise learning rate decay for classifiers and segmentors alike."""
from collections.abc import Callable
from functools import partial

from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as ROOT_CONSTRUCTORS
from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor
from torch import nn

from ...errors import UserInputError
from ...registry import OPTIM_WRAPPER_CONSTRUCTORS

#: parts of names whose tensors get no weight decay although they are matrices
NO_DECAY = ('pos_embed', 'cls_token', 'mask_token', 'relative_position_bias_table')
OPTIONS = ('layer_decay_rate', 'norm_decay_mult', 'bias_decay_mult', 'flat_decay_mult', 'custom_keys')


@ROOT_CONSTRUCTORS.register_module()  # bare names of mmseg's scope are looked up there
@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class BackboneLayerDecayConstructor(LearningRateDecayOptimWrapperConstructor):
    """Multiply the learning rate by ``layer_decay_rate`` once more for every block nearer to the image.

    The depth is what ``model.backbone.get_layer_depth`` says, for any model with a ``backbone``: mmpretrain's
    ``ImageClassifier`` and mmsegmentation's ``EncoderDecoder``, wrapped for several GPUs or not. A vision transformer
    of L blocks has depths 0 (patches, [class] token, positions), 1 to L, and L + 1 for its last norm and whatever is
    not the backbone; a parameter of depth n learns at ``lr * layer_decay_rate ** (L + 1 - n)``. Frozen parameters are
    left out.

    mmpretrain's constructor, whose option names these are, asks the model itself, which a segmentor does not answer.
    Norms, biases, other vectors, position embeddings and tables, [class] and mask tokens get no weight decay here
    without being listed (MAE; BEiT for the tables).

    Args:
        optim_wrapper_cfg (dict): Config of the optimiser wrapper; its optimiser has ``lr`` and ``weight_decay``.
        paramwise_cfg (dict, optional): May hold

            - ``layer_decay_rate`` (float): Defaults to 1, the same rate everywhere.
            - ``norm_decay_mult``, ``bias_decay_mult``, ``flat_decay_mult`` (float): Factors on the weight decay of
              norms, of biases, of one-dimensional tensors. Each defaults to 0.
            - ``custom_keys`` (dict): From a part of a parameter's name to ``dict(decay_mult=...)``; the longest match
              holds. Added to those of :data:`NO_DECAY`.

    Raises:
        UserInputError: If an option is unknown, or the model's backbone cannot tell depths.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        options = dict(paramwise_cfg or {})
        unknown = sorted(set(options) - set(OPTIONS))
        if unknown:
            raise UserInputError(f'Unknown option {unknown[0]!r} in paramwise_cfg of BackboneLayerDecayConstructor; '
                                 f'choose from {", ".join(OPTIONS)}.')
        custom_keys = {**{name: dict(decay_mult=0.) for name in NO_DECAY}, **options.pop('custom_keys', {})}
        for name, settings in custom_keys.items():
            odd = sorted(set(settings) - {'decay_mult'})
            if odd:
                raise UserInputError(f'custom_keys[{name!r}] of BackboneLayerDecayConstructor takes decay_mult alone, '
                                     f'not {odd[0]!r}; learning rates follow from depth.')
        for name in ('lr', 'weight_decay'):
            if optim_wrapper_cfg['optimizer'].get(name) is None:
                raise UserInputError(f'BackboneLayerDecayConstructor scales optim_wrapper.optimizer.{name}, which the '
                                     f'config does not set; add it.')
        super().__init__(optim_wrapper_cfg, dict(
            dict(layer_decay_rate=1., norm_decay_mult=0., bias_decay_mult=0., flat_decay_mult=0.),
            **options, custom_keys=custom_keys))

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '',
                   get_layer_depth: Callable | None = None, **kwargs) -> None:
        """Append one group a trainable parameter of ``module``; see mmpretrain's constructor."""
        if get_layer_depth is None:
            backbone = getattr(module, 'backbone', None)
            if not hasattr(backbone, 'get_layer_depth'):
                raise UserInputError(
                    f'Layer-wise learning rate decay needs a backbone with get_layer_depth, which '
                    f'{type(module).__name__} with {type(backbone).__name__} has not; use a vision transformer of '
                    f'mmpretrain or leave optim_wrapper.constructor out.')
            get_layer_depth = partial(backbone.get_layer_depth, prefix='backbone.')
        super().add_params(params, module, prefix=prefix, get_layer_depth=get_layer_depth, **kwargs)
