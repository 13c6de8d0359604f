"""Compare a teacher's cache with a config, and change the config so that it trains with the cache."""
import hashlib
import json
import os
from collections.abc import Iterator

from mmengine.config import Config
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import DefaultScope

from ..datasets import FixedViews
from ..errors import UserInputError
from ..models import CachedTeacher, DeviceAugmentation
from ..models.target_generators.teacher_cache import TOOL
from ..registry import DATASETS, MODELS

PROBED = 8  # images whose first views are hashed (our choice)
PATHS = ('data_root', 'file')  # settings of datasets that may be relative


def use_teacher_cache(cfg: Config) -> None:
    """If the teacher is a ``CachedTeacher``, compare its file with the config and wrap the data in ``FixedViews``.

    Raises:
        UserInputError: If the file was made with another teacher, data set, pipeline, data preprocessor or share of the
            patches.
    """
    model = cfg.get('model') or {}
    generator = model.get('target_generator') or {}
    if kind_of(generator) != 'CachedTeacher' or not cfg.get('train_dataloader'):
        return
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
        teacher: CachedTeacher = MODELS.build(dict(generator))
        teacher.check_tokens(model.get('token_fraction', 1.0))
        held, path, dataset = teacher.cache.settings, teacher.cache.path, plain_dataset(cfg)
        for name, one, other in (('dataset', held.dataset, comparable(dataset)),
                                 ('data_preprocessor', held.preprocessor, described(build_preprocessor(cfg)))):
            if one != other:
                key, was, now = first_difference(name, one, other)
                raise UserInputError(f'{path!r} was made with {key}={str(was):.200}, but the config says '
                                     f'{str(now):.200}; set what it was made with, or make another file with {TOOL}.')
        settings = dict(type='mimhd_mm.FixedViews', dataset=dataset, num_views=held.num_views,
                        view_seed=held.view_seed)
        views = DATASETS.build(dict(settings))
        if len(views) != len(teacher.cache):
            raise UserInputError(f'{path!r} was made of {len(teacher.cache)} images and the data set has {len(views)}; '
                                 f'train with the images it was made of, or make another file with {TOOL}.')
        if hash_of_pixels(views) != held.pixels:
            raise UserInputError(f'{path!r} was made of other pixels than the same views have now: images were '
                                 f'replaced, or another version of a library decodes or resizes them; make another '
                                 f'file with {TOOL}.')
    cfg.train_dataloader.dataset = settings


def kind_of(settings: dict) -> str:
    """The name of a class in a config, without its scope."""
    return str(settings.get('type')).split('.')[-1]


def plain_dataset(cfg: Config) -> dict:
    """The config of the training data, without ``FixedViews`` around it.

    Raises:
        UserInputError: If there is none.
    """
    dataset = (cfg.get('train_dataloader') or {}).get('dataset')
    if not isinstance(dataset, dict):
        raise UserInputError('The config has no train_dataloader with a dataset; give one that pre-trains.')
    return dataset['dataset'] if kind_of(dataset) == 'FixedViews' else dataset


def comparable(value: object, key: str | None = None) -> object:
    """A part of a config as JSON returns it, with absolute paths of data and without mmengine's marks."""
    if isinstance(value, dict):
        return {str(name): comparable(part, name) for name, part in value.items() if name != '_scope_'}
    if isinstance(value, (list, tuple)):
        return [comparable(part) for part in value]
    if key in PATHS and isinstance(value, str) and '://' not in value:
        return os.path.realpath(value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def build_preprocessor(cfg: Config) -> BaseDataPreprocessor:
    """Build the data preprocessor of a pre-training; mmpretrain's default if the config names none."""
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    return MODELS.build(dict(dict(type='SelfSupDataPreprocessor'), **preprocessor))


def described(preprocess: BaseDataPreprocessor) -> dict:
    """The settings of a data preprocessor: ``type``, ``mean``, ``std``, ``to_rgb``.

    Raises:
        UserInputError: If it augments.
    """
    if isinstance(preprocess, DeviceAugmentation):
        raise UserInputError('DeviceAugmentation draws crops on the device, anew at every step, and a cached teacher '
                             'needs the same views again; crop in the pipeline, and set '
                             'data_preprocessor.type=SelfSupDataPreprocessor.')
    statistics = {name: getattr(preprocess, name).flatten().tolist() if hasattr(preprocess, name) else None
                  for name in ('mean', 'std')}
    return dict(type=type(preprocess).__name__, to_rgb=preprocess._channel_conversion, **statistics)


def first_difference(key: str, one: object, other: object) -> tuple[str, object, object]:
    """The first difference between two parts of configs: the key and the two values."""
    if isinstance(one, dict) and isinstance(other, dict):
        pairs: Iterator = ((name, one.get(name), other.get(name)) for name in sorted({*one, *other}))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = zip(range(len(one)), one, other)
    else:
        return key, one, other
    name, *parts = next(pair for pair in pairs if pair[1] != pair[2])
    return first_difference(f'{key}.{name}', *parts)


def hash_of_pixels(views: FixedViews) -> str:
    """Hash the first view of a few evenly spaced images."""
    digest = hashlib.sha256()
    number = min(PROBED, len(views))
    for place in range(number):
        inputs = views.view(place * len(views) // number, 0)['inputs']  # (3, H, W), or two of them
        for image in inputs if isinstance(inputs, (list, tuple)) else [inputs]:
            digest.update(json.dumps(list(image.shape)).encode() + image.contiguous().numpy().tobytes())
    return digest.hexdigest()
