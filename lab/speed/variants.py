"""The steps that ``lab/speed/step_time.py`` compares, built from this project's configs."""
import copy
import inspect
import math
from typing import Dict, NamedTuple, Optional, Sequence, Tuple

import torch
from mmengine.config import Config
from torch import nn

from mimhd_mm.downstream.export import read_run
from mimhd_mm.engine.hooks.compile_hook import compile_networks
from mimhd_mm.engine.loading import build_model, read_config
from mimhd_mm.errors import UserInputError
from mimhd_mm.measuring.devices import choose
from mimhd_mm.measuring.stand_ins import fill_randomly
from mimhd_mm.models.backbones import RelationViT
from mimhd_mm.models.selfsup import MIMHD, TinyMIM
from mimhd_mm.project import project_root

from .literal import LiteralMIMHD, PublicTinyMIM, broadcast_bytes

#: size -> (MIM-HD's config, TinyMIM's), below ``configs/pretrain``
SIZES = {size: (f'mimhd_vit-{size}-p16_8xb512-amp-coslr-100e_in1k.py',
                f'tinymim_vit-{size}-p16_8xb512-amp-coslr-300e_in1k.py') for size in ('base', 'small', 'tiny')}
SIZES['micro'] = ('mini/mimhd_vit-micro-p8_1xb64-coslr-5e_tiny-imagenet-64px.py',
                  'mini/tinymim_vit-micro-p8_1xb64-coslr-5e_tiny-imagenet-64px.py')
#: students distilled side by side -> their config, below ``configs/pretrain``
STUDENTS = {'tiny-small-base': 'mimhd_vit-tiny-small-base-p16_8xb256-amp-coslr-100e_in1k.py',
            'micro': 'mini/mimhd_vit-micro-two-students-p8_1xb64-coslr-5e_tiny-imagenet-64px.py'}
DTYPES = ('float32', 'bfloat16')


class NotHere(UserInputError):
    """This variant cannot be measured here; the others can."""


class Variant(NamedTuple):
    """One way to make a step.

    Attributes:
        caption (str): What it is, for a table's legend.
        algorithm (type): Class to build.
        changes (dict): Merged into the config's model.
        half_on_gpu (bool): fp16 with loss scaling on a GPU, whatever type the others have.
        dtype (str, optional): One of :data:`DTYPES`, whatever type the others have. None is theirs.
        optimiser (dict): Merged into the config's ``optim_wrapper.optimizer``.
    """
    caption: str
    algorithm: type
    changes: dict = {}
    half_on_gpu: bool = False
    dtype: Optional[str] = None
    optimiser: dict = {}

    def dtype_on(self, device: torch.device, asked: str) -> str:
        """The type of its step, where ``asked`` is that of the others."""
        return 'float16' if self.half_on_gpu and device.type == 'cuda' else self.dtype or asked


#: every patch is seen and every image reconstructed, and heads are weighed: the default until 0.1, and what is measured
#: against the literal form
WHOLE = dict(token_fraction=1.0, rec_weight=0.1, rec_fraction=1.0,
             head=dict(matcher=dict(type='AttentionHeadMatcher', embeddings=False)))
#: in the order of the table; the first is what the others are compared with
VARIANTS = {
    'mimhd': Variant('MIM-HD, this project, every patch, weighted heads', MIMHD, WHOLE),
    'mimhd-half': Variant('MIM-HD, this project, reconstructing half (`rec_fraction=0.5`)', MIMHD,
                          dict(WHOLE, rec_fraction=0.5)),
    'mimhd-bf16': Variant('MIM-HD, this project, by autocast to bfloat16', MIMHD, WHOLE, dtype='bfloat16'),
    'mimhd-default': Variant('MIM-HD, this project, the default of the configs', MIMHD),
    'tinymim': Variant('TinyMIM, this project', TinyMIM),
    'literal': Variant('MIM-HD as its paper reads: broadcast KL, whole teacher, one decoder pass a view, attention '
                       'materialised, plain AdamW, head weights by eq. 4 as printed', LiteralMIMHD,
                       dict(WHOLE, head=dict(matcher=dict(type='LiteralHeadMatcher'))),
                       optimiser=dict(type='AdamW')),
    'public-tinymim': Variant('TinyMIM as its public code has it: attention materialised, plain AdamW, fp16 on a GPU',
                              PublicTinyMIM, half_on_gpu=True, optimiser=dict(type='AdamW')),
    'mimhd-adamw': Variant("MIM-HD, this project, torch's AdamW as it comes", MIMHD, WHOLE, optimiser=dict(type='AdamW')),
    'mimhd-foreach': Variant('MIM-HD, this project, AdamW by operations on all weights (`foreach=True`)', MIMHD,
                             WHOLE, optimiser=dict(type='AdamW', foreach=True)),
}
DEFAULT_VARIANTS = [name for name in VARIANTS if name not in ('mimhd-adamw', 'mimhd-foreach', 'mimhd-default')]


def read_size(size: str, family: type) -> Config:
    """The pre-training config of a size, for MIM-HD or TinyMIM.

    Raises:
        UserInputError: If the size is unknown.
    """
    name = SIZES[choose([size], tuple(SIZES), 'size')[0]][not issubclass(family, MIMHD)]
    return read_config(project_root() / 'configs' / 'pretrain' / name)


def build_variant(name: str, size: str, *, img_size: Optional[int] = None, heads: Optional[int] = None,
                  dtype: str = 'float32') -> Tuple[nn.Module, Config]:
    """Model and config of a variant, with random weights and no file read.

    The model's ``init_weights``, which wants a teacher's file, is not called: see
    :func:`~mimhd_mm.measuring.stand_ins.fill_randomly`.

    Args:
        name (str): A key of :data:`VARIANTS`.
        size (str): A key of :data:`SIZES`.
        img_size (int, optional): Pixels along a side, in place of the config's.
        heads (int, optional): Heads of the student's blocks, in place of the architecture's.
        dtype (str): Of the step; this project's teachers keep their weights in it. Defaults to ``'float32'``.

    Raises:
        UserInputError: If a name is unknown or the sizes do not agree.
        NotHere: If the algorithm lacks an argument that the variant sets.
    """
    variant = VARIANTS[choose([name], tuple(VARIANTS), 'variant')[0]]
    missing = [key for key in variant.changes
               if not any(key in inspect.signature(cls.__init__).parameters for cls in variant.algorithm.__mro__)]
    if missing:
        raise NotHere(f'{variant.algorithm.__name__} has no argument {missing[0]!r}.')
    cfg = read_size(size, variant.algorithm)
    model = copy.deepcopy(cfg.model.to_dict())
    model['type'] = variant.algorithm
    ours = variant.algorithm in (MIMHD, TinyMIM)
    model['target_generator']['dtype'] = dtype if ours and dtype != 'float32' else None
    if img_size is not None:
        model['backbone']['img_size'] = model['target_generator']['img_size'] = img_size
    if heads is not None:
        model['backbone']['arch'] = dict(RelationViT.settings_of(model['backbone']['arch']), num_heads=heads)
    for key, value in variant.changes.items():
        model[key] = dict(model[key], **value) if isinstance(value, dict) else value
    cfg.model = model
    cfg.optim_wrapper.optimizer.update(variant.optimiser)
    built = build_model(cfg)
    fill_randomly(built)
    return built.train(), cfg


def build_students(group: str, *, img_size: Optional[int] = None, dtype: str = 'float32'
                   ) -> Dict[str, Tuple[nn.Module, Config]]:
    """A ``MultiStudent``, and each of its students with a teacher of its own, with random weights and no file read.

    Args:
        group (str): A key of :data:`STUDENTS`.
        img_size (int, optional): Pixels along a side, in place of the config's.
        dtype (str): As of :func:`build_variant`.

    Returns:
        dict: Model and config of each student by name, then of all as ``'together'``.

    Raises:
        UserInputError: If the group is unknown or the sizes do not agree.
    """
    name = STUDENTS[choose([group], tuple(STUDENTS), 'group of students')[0]]
    cfg = read_run(project_root() / 'configs' / 'pretrain' / name)
    cfg.model.target_generator.dtype = None if dtype == 'float32' else dtype
    if img_size is not None:
        for sized in (cfg.model.target_generator, *(student.backbone for student in cfg.model.students.values())):
            sized.img_size = img_size
    cfgs = {}
    for name, student in cfg.model.students.items():
        cfgs[name] = copy.deepcopy(cfg)
        cfgs[name].model = dict(student, target_generator=cfg.model.target_generator,
                                token_fraction=cfg.model.token_fraction)
        del cfgs[name].optim_wrapper['constructor']
    built = {name: (build_model(copy.deepcopy(own)), own) for name, own in dict(cfgs, together=cfg).items()}
    for model, _ in built.values():
        fill_randomly(model)
        model.train()
    return built


def share_frozen(models: Sequence[nn.Module]) -> None:
    """Let frozen weights of the same name, shape and type be the same memory in all models: teachers are large."""
    seen: Dict[tuple, torch.Tensor] = {}
    for model in models:
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                parameter.data = seen.setdefault((name, parameter.shape, parameter.dtype), parameter.data)


def check_memory(model: nn.Module, batch_size: int, limit: float) -> None:
    """Refuse a literal step whose broadcast KL alone would not fit.

    Args:
        model (nn.Module): As built.
        batch_size (int): Images.
        limit (float): Bytes.

    Raises:
        NotHere: If it needs more.
    """
    if isinstance(model, LiteralMIMHD):
        need = broadcast_bytes(batch_size, model.backbone.relation_heads, model.target_generator.relation_heads,
                               math.prod(model.backbone.patch_resolution))
        if need > limit:
            raise NotHere(f'its broadcast KL needs {need / 1e9:.1f} GB, more than the limit of {limit / 1e9:.1f} GB '
                          f'(--max-gb).')


def compile_variant(model: nn.Module) -> None:
    """``torch.compile`` teacher, student and decoder, as ``CompileHook`` does; it is done at their first call."""
    compile_networks(model)
    if isinstance(model, LiteralMIMHD):
        model.predict = torch.compile(model.predict)
