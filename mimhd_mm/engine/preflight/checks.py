"""Check folders, images and devices that a config names, before anything is built."""
from itertools import islice
from pathlib import Path

import torch
from mmengine.config import Config

from ...datasets.decoding import BadImage, decode_image, read_bytes
from ...datasets.image_files import IMAGE_SUFFIXES, image_files
from ...datasets.nesting import datasets_of
from ...datasets.segmentation_check import check_segmentation_config
from ...errors import UserInputError
from .pretrained import check_class_count, check_pretrained

TRIED = 10  # images that are opened before a folder is refused (our choice)
GPU_WRAPPERS = ('AmpOptimWrapper', 'ApexOptimWrapper', 'GuardedAmpOptimWrapper')


def check_config(cfg: Config) -> None:
    """Check everything that can be checked without building a model.

    Args:
        cfg (Config): A config of mmpretrain's or mmsegmentation's kind.

    Raises:
        UserInputError: With the first problem found.
    """
    check_device(cfg)
    for key, dataset in datasets_of(cfg):
        check_image_folder(key, dataset)
    if cfg.get('default_scope') == 'mmseg':
        check_segmentation_config(cfg)
    check_class_count(cfg)
    check_pretrained(cfg)


def check_device(cfg: Config) -> None:
    """Refuse GPU-only mixed precision where there is no GPU.

    Raises:
        UserInputError: If ``optim_wrapper`` needs a device that is not there.
    """
    wrapper = str(cfg.get('optim_wrapper', {}).get('type', 'OptimWrapper')).split('.')[-1]
    if wrapper in GPU_WRAPPERS and not torch.cuda.is_available():
        raise UserInputError(
            f'The config asks for {wrapper}, which needs a GPU, and none is visible; pass --amp for bf16 on this CPU, '
            f'or --cfg-options optim_wrapper.type=OptimWrapper for float32.')


def check_image_folder(key: str, dataset: dict, advice: str | None = None) -> None:
    """Check that the folder of a dataset config exists and that one of its first images decodes.

    Args:
        key (str): The config key, for the message.
        dataset (dict): A dataset config with ``data_root`` and, maybe, ``data_prefix`` and ``split``.
        advice (str, optional): What to do about a missing folder. None names the config key to set.

    Raises:
        UserInputError: If the folder is missing or empty, or none of its first images decodes.
    """
    prefix = dataset.get('data_prefix') or ''
    if isinstance(prefix, dict):
        prefix = prefix.get('img_path', '')
    root = Path(dataset.get('data_root') or '')
    folder = root / prefix
    if not prefix and dataset.get('split') and (root / dataset['split']).is_dir():
        folder = root / dataset['split']
    if not (dataset.get('data_root') or prefix) or '://' in str(dataset.get('data_root')):
        return
    if not folder.is_dir():
        advice = advice or f'point it at your images with --cfg-options {key}.data_root=FOLDER'
        raise UserInputError(f'{key}: no folder {str(folder)!r}; {advice}.')
    paths, bad = islice(image_files(folder), TRIED), []
    for path in paths:
        try:
            decode_image(read_bytes(str(path)))
            return
        except BadImage as error:
            bad.append((path, error))
    if not bad:
        raise UserInputError(f'{key}: no image in {str(folder)!r} or below; expected {", ".join(IMAGE_SUFFIXES)}.')
    path, error = bad[0]
    raise UserInputError(
        f'{key}: the image {str(path)!r} cannot be decoded ({error}); remove or replace it.') from error
