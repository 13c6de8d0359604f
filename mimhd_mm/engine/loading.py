"""Build models and load images from a config and a checkpoint, without a Runner."""
import inspect
import random
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import init_default_scope
from mmpretrain.models import VisionTransformer
from torch import Tensor, nn

from ..datasets.decoding import BadImage, decode_image, read_bytes
from ..datasets.image_files import IMAGE_SUFFIXES, image_files
from ..errors import UserInputError
from ..models import MAETeacher
from ..models.positions import resize_positions
from ..random_states import kept_random_states
from ..registry import DATASETS, MODELS, TRANSFORMS
from ..weights.fitting import load_exactly
from ..weights.mae_files import read_mae_file
from ..weights.reading import read_tensors
from .launch import read_config_file
from .resume.safe_loading import safe_loading


def read_config(path: str | Path) -> Config:
    """Read a config and make its default scope the current one.

    Raises:
        UserInputError: If the file is missing, cannot be parsed or holds no model with a backbone.
    """
    cfg = read_config_file(path)
    if 'backbone' not in cfg.get('model', {}):
        raise UserInputError(f'The config {str(path)!r} has no model with a backbone; give one that trains a model.')
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    return cfg


def build_model(cfg: Config) -> nn.Module:
    """Build ``cfg.model`` as the Runner does, with the top level's ``data_preprocessor``; weights not initialised."""
    model = dict(cfg.model)
    if cfg.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    return MODELS.build(model)


def build_untrained(cfg: Config, seed: int) -> nn.Module:
    """Build the model of a run with this seed as it is before the first step; global random states do not change."""
    with kept_random_states(), safe_loading():
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        model = build_model(cfg)
        model.init_weights()
    return model


def build_teacher(checkpoint: str | Path, arch: str | dict, img_size: int, patch_size: int,
                  kind: type[VisionTransformer] = VisionTransformer, **kwargs) -> VisionTransformer:
    """The whole encoder of a MAE file, to its last block, with the final norm.

    A distillation run builds only the blocks that it needs; this is the whole encoder, for evaluation.

    Args:
        checkpoint (str | Path): A file that :func:`~mimhd_mm.weights.mae_files.read_mae_file` reads.
        arch (str | dict): Architecture of the file's encoder; its head count is not in the file.
        img_size (int): Pixels.
        patch_size (int): Pixels.
        kind (type): Class to build. Defaults to ``VisionTransformer``.
        **kwargs: Further arguments of it.

    Raises:
        UserInputError: If the file cannot be read or its sizes are not those of ``arch``.
    """
    arch = arch if isinstance(arch, str) else dict(arch)
    backbone = kind(arch=arch, img_size=img_size, patch_size=patch_size, out_type='raw', **kwargs)
    tensors = dict(read_mae_file(checkpoint).encoder)
    tensors['pos_embed'] = resize_positions(tensors['pos_embed'], backbone.patch_resolution)
    load_exactly(backbone, tensors, checkpoint, 'check `arch` and `img_size`', part=True)
    return backbone


def teacher_settings(cfg: Config) -> dict | None:
    """Arguments for :func:`build_teacher` from a config; None if it names no teacher's file or the file is missing."""
    teacher = cfg.model.get('target_generator') or {}
    if not teacher.get('checkpoint') or not Path(teacher['checkpoint']).is_file():
        return None
    defaults = inspect.signature(MAETeacher).parameters
    names = ('checkpoint', 'arch', 'img_size', 'patch_size')
    return {name: teacher.get(name, defaults[name].default) for name in names}


def load_backbone(cfg: Config, checkpoint: str | Path, kind: type[VisionTransformer] | None = None
                  ) -> VisionTransformer:
    """Load the trained backbone of a checkpoint, without the teacher's file.

    Args:
        cfg (Config): The config of the run.
        checkpoint (str | Path): Any of its checkpoints.
        kind (type, optional): A subclass of ``VisionTransformer`` to build where the config's backbone is not one of
            it, with what the config says about the architecture. None keeps the config's class. Defaults to None.

    Raises:
        UserInputError: If the two do not belong together.
    """
    backbone = MODELS.build(dict(cfg.model.backbone))
    if kind is not None and not isinstance(backbone, kind):
        if not isinstance(backbone, VisionTransformer):
            raise UserInputError(f'The config has a {type(backbone).__name__} for a backbone; expected a '
                                 f'VisionTransformer or a subclass of it.')
        settings = inspect.signature(VisionTransformer).parameters
        backbone = kind(**{name: value for name, value in cfg.model.backbone.items()
                           if name in settings and name not in ('init_cfg', 'out_type')})
    tensors = read_tensors(checkpoint)
    load_exactly(backbone, {key[len('backbone.'):]: value for key, value in tensors.items()
                            if key.startswith('backbone.')}, checkpoint)
    return backbone


def load_model(cfg: Config, checkpoint: str | Path) -> nn.Module:
    """Load the whole model of a checkpoint, in evaluation mode; the teacher is read from its own file.

    Raises:
        UserInputError: If the two do not belong together, or the teacher's file is not there.
    """
    model = build_untrained(cfg, seed=0)
    load_exactly(model, read_tensors(checkpoint), checkpoint)
    model.eval()
    return model


def build_preprocessor(cfg: Config) -> BaseDataPreprocessor:
    """Build the data preprocessor of ``cfg``, from the model or the top level."""
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor')
    if preprocessor is None:
        raise UserInputError('The config has no data_preprocessor, which says how images are normalised; add it.')
    return MODELS.build(dict(preprocessor))


def image_size(cfg: Config) -> tuple[int, int]:
    """Height and width in pixels that the config's backbone expects, 224 where it does not say."""
    size = cfg.model.backbone.get('img_size', 224)
    return (size, size) if isinstance(size, int) else tuple(size)


def list_images(folder: str | Path) -> list[Path]:
    """Every image file of a folder and below, sorted.

    Raises:
        UserInputError: If there is none.
    """
    paths = sorted(image_files(folder))
    if not paths:
        raise UserInputError(f'No image in {str(folder)!r} or below; give a folder with {", ".join(IMAGE_SUFFIXES)} '
                             f'files.')
    return paths


def images_of(cfg: Config) -> list[Path]:
    """The image files of the config's own validation set, or of its training set where it has none.

    Raises:
        UserInputError: If the config names no dataset.
    """
    loader = cfg.get('val_dataloader') or cfg.get('train_dataloader')
    if loader is None:
        raise UserInputError('The config names no dataset; give a folder with --images.')
    dataset = DATASETS.build(dict(loader.dataset, pipeline=[]))
    return [Path(dataset.get_data_info(i)['img_path']) for i in range(len(dataset))]


def eval_pipeline(size: tuple[int, int], example: str | Path) -> list[dict]:
    """Transforms that bring images to one size without random choices.

    Args:
        size (tuple): Height and width in pixels.
        example (str | Path): An image of the folder. Where its short edge is longer than a square ``size``, the short
            edge of every image becomes 256/224 of it and the centre is cropped (as in ImageNet evaluation); else
            images are resized to ``size`` whole.

    Raises:
        UserInputError: If the example does not decode.
    """
    try:
        short = min(decode_image(read_bytes(str(example))).shape[:2])
    except BadImage as error:
        raise UserInputError(
            f'The image {str(example)!r} cannot be decoded ({error}); remove or replace it.') from error
    bicubic = dict(backend='pillow', interpolation='bicubic')
    height, width = size
    if height == width and short > height:
        resize = [dict(type='ResizeEdge', scale=round(height * 256 / 224), edge='short', **bicubic),
                  dict(type='CenterCrop', crop_size=height)]
    else:
        resize = [dict(type='Resize', scale=(width, height), **bicubic)]
    return [dict(type='LoadAnyImage'), *resize, dict(type='PackInputs')]


def read_images(paths: list[Path], size: tuple[int, int], number: int, preprocess: BaseDataPreprocessor) -> Tensor:
    """Load ``number`` images, evenly spaced in the list, as the model receives them.

    Args:
        paths (list[Path]): Image files.
        size (tuple): Height and width in pixels.
        number (int): How many, or all where the list is shorter.
        preprocess (BaseDataPreprocessor): The model's.

    Returns:
        Tensor: (number, 3, H, W), normalised.
    """
    number = min(number, len(paths))
    paths = [paths[i * len(paths) // number] for i in range(number)]
    pipeline = Compose([TRANSFORMS.build(step) for step in eval_pipeline(size, paths[0])])
    images = torch.stack([pipeline(dict(img_path=str(path)))['inputs'] for path in paths])  # (B, 3, H, W) uint8
    return preprocess(dict(inputs=images, data_samples=None))['inputs']  # (B, 3, H, W)
