"""Look at what fine-tuning starts from before it starts: the student's file and the classes of the data."""
from pathlib import Path
from typing import Dict, Optional

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.datasets import BaseDataset
from mmpretrain.models import VisionTransformer
from torch import Tensor, nn

from ..errors import UserInputError
from ..models.mae_files import read_tensors
from ..registry import DATASETS, MODELS

#: norms after the last block, of which a network has the one, the other or both by its kind of output
LAST_NORMS = ('ln1.', 'ln2.')


def check_pretrained(cfg: Config) -> None:
    """Compare the file of ``model.backbone.init_cfg`` with the backbone that shall start from it.

    mmengine loads what fits and logs the rest, so training from a file that does not fit trains from scratch. Position
    embeddings may be of another image size; the last norms may be missing or left over, but for the one that follows
    the last block, where the backbone has it. Head counts are not in a file's shapes and are not compared.

    Args:
        cfg (Config): A config that trains; others, and files behind a URL, are left alone.

    Raises:
        UserInputError: If the file is missing or unreadable, holds no tensor under the prefix, or tensors of other
            names or shapes.
    """
    backbone = (cfg.get('model') or {}).get('backbone') or {}
    init_cfg = pretrained_init_cfg(backbone)
    if not cfg.get('train_cfg') or init_cfg is None or '://' in str(init_cfg.get('checkpoint')):
        return
    path, prefix = str(init_cfg.get('checkpoint') or ''), init_cfg.get('prefix') or ''
    if not Path(path).is_file():
        raise UserInputError(f'No file {path!r} to start the backbone from; name the checkpoint of a student with '
                             f'--cfg-options model.backbone.init_cfg.checkpoint=FILE.')
    tensors = read_tensors(path)
    own = {key[len(prefix):]: value for key, value in tensors.items() if key.startswith(prefix)}
    if not own:
        raise UserInputError(f'{path!r} has no tensor under {prefix!r}, its first is {next(iter(tensors))!r}; expected '
                             f'a checkpoint of this project or of mmpretrain (official MAE files are converted by '
                             f'tools/model_converters/mae_to_mmpretrain.py).')
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
        built = MODELS.build(dict(backbone, init_cfg=None))
    if isinstance(built, VisionTransformer):
        compare_backbone(built, own, path)


def pretrained_init_cfg(backbone: dict) -> Optional[dict]:
    """The entry of a backbone's ``init_cfg`` that loads a file, or None."""
    init_cfgs = backbone.get('init_cfg') or []
    for init_cfg in [init_cfgs] if isinstance(init_cfgs, dict) else init_cfgs:
        if init_cfg.get('type') == 'Pretrained':
            return init_cfg
    return None


def compare_backbone(backbone: nn.Module, tensors: Dict[str, Tensor], source: str) -> None:
    """Compare names and shapes of a backbone with those of a file.

    Args:
        backbone (nn.Module): A ``VisionTransformer``, or a subclass that adds relative position tables or layer scale;
            those have a start of their own.
        tensors (dict): The file's, without the prefix.
        source (str): The file, for messages.

    Raises:
        UserInputError: If they do not belong together.
    """
    expected = backbone.state_dict()
    optional = {key for key in expected if key.startswith('ln2.') or 'relative_position' in key or '.gamma' in key}
    missing = [key for key in expected if key not in tensors and key not in optional]
    unknown = [key for key in tensors if key not in expected and not key.startswith(LAST_NORMS)]
    odd = [key for key, value in expected.items() if key in tensors and not _fits(key, tensors[key], value)]
    if odd:
        raise UserInputError(f'{source!r}: {odd[0]!r} is {tuple(tensors[odd[0]].shape)} in the file but '
                             f'{tuple(expected[odd[0]].shape)} by the config; give the config of that student\'s size.')
    for problem, keys in (('lacks', missing), ('has the unknown', unknown)):
        if keys:
            raise UserInputError(f'{source!r} {problem} {keys[0]!r} ({len(keys)} such tensors) for a '
                                 f'{type(backbone).__name__} as the config has it; give the config of that student.')


def _fits(key: str, found: Tensor, expected: Tensor) -> bool:
    """Whether shapes agree, or are positions of square images of another size, which are interpolated."""
    if found.shape == expected.shape or 'relative_position' in key:
        return True
    if key != 'pos_embed' or found.ndim != 3 or found.shape[2] != expected.shape[2]:
        return False
    return int((found.shape[1] - 1) ** .5) ** 2 == found.shape[1] - 1


def check_class_count(cfg: Config) -> None:
    """Compare ``num_classes`` of a classifier's head and preprocessor with the classes of its data sets.

    A head that is too wide trains and one that is too narrow fails in the middle of an epoch, on a GPU without a
    message. To be called where the folders of the data are known to be there.

    Args:
        cfg (Config): Segmentation and pre-training configs, which have no such head, are left alone.

    Raises:
        UserInputError: If a number differs, with the options that set it right.
    """
    model = cfg.get('model') or {}
    head = model.get('head') or {}
    if cfg.get('default_scope', 'mmpretrain') != 'mmpretrain' or 'num_classes' not in head:
        return
    preprocessor = model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    where = 'model.data_preprocessor' if model.get('data_preprocessor') else 'data_preprocessor'
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        number = count_classes((cfg.get(loader) or {}).get('dataset'))
        given = {'model.head': head['num_classes'], where: preprocessor.get('num_classes', number)}
        if number is not None and set(given.values()) != {number}:
            options = ' '.join(f'{key}.num_classes={number}' for key in given)
            found = ' and '.join(f'{key}.num_classes={value}' for key, value in given.items())
            raise UserInputError(f'{loader}.dataset has {number} classes but the config says {found}; '
                                 f'give --cfg-options {options}.')


def count_classes(dataset: Optional[dict]) -> Optional[int]:
    """How many classes the dataset of a config has; None if it is no dataset of mmpretrain's kind, or has no labels."""
    while dataset is not None and 'dataset' in dataset:  # RepeatDataset and its kin
        dataset = dataset['dataset']
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        kind = DATASETS.get(dataset['type']) if dataset and isinstance(dataset.get('type'), str) else None
        if not (isinstance(kind, type) and issubclass(kind, BaseDataset)):
            return None
        built = DATASETS.build(dict(dataset, pipeline=[], lazy_init=True))
        if built.CLASSES is None:
            built.full_init()
    return None if built.CLASSES is None else len(built.CLASSES)
