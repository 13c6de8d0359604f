"""Check a segmentation data set before a run: pairs, sizes, labels, files that do not decode."""
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

from ..errors import UserInputError
from .nesting import LOADERS, innermost_datasets

Pair = tuple[str, str]
IGNORED = 255  # the label that mmsegmentation never scores
ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)  # the EXIF tag, and its values that swap width and height
THREADS = 4


@dataclass
class SplitReport:
    """What was found in one split.

    Attributes:
        images (int): Images.
        annotations (int): Annotation files, with those that belong to no image.
        checked (int): Pairs that were opened.
        labels (set[int]): Raw labels that occur in them, 255 left out.
        unscored (float): Share of their pixels that is not scored, 0 to 1.
        sizes (set): (width, height) in pixels that occur.
    """
    images: int
    annotations: int
    checked: int = 0
    labels: set[int] = field(default_factory=set)
    unscored: float = 0.
    sizes: set = field(default_factory=set)


def list_pairs(images: str | Path, annotations: str | Path, img_suffix: str = '.jpg',
               seg_map_suffix: str = '.png') -> list[Pair]:
    """The image files of a folder and below, each with the path its annotation must have.

    Args:
        images (str | Path): Folder of images.
        annotations (str | Path): Folder of annotations.
        img_suffix (str): Ending of images. Defaults to ``'.jpg'`` (mmsegmentation's ``ADE20KDataset``).
        seg_map_suffix (str): Ending of annotations. Defaults to ``'.png'`` (as above).

    Returns:
        list[tuple[str, str]]: Sorted by image.

    Raises:
        UserInputError: If a folder is missing or there is no image.
    """
    for folder in (images, annotations):
        if not Path(folder).is_dir():
            raise UserInputError(f'No folder {str(folder)!r}; expected images/training, images/validation and the same '
                                 f'two under annotations.')
    stems = sorted(str(path.relative_to(images))[:-len(img_suffix)] for path in Path(images).rglob('*' + img_suffix))
    if not stems:
        raise UserInputError(f'No {img_suffix} image in {str(images)!r} or below.')
    return [(str(Path(images) / (stem + img_suffix)), str(Path(annotations) / (stem + seg_map_suffix)))
            for stem in stems]


def check_pairs(pairs: list[Pair], num_labels: int, reduce_zero_label: bool, sample: int | None = None,
                progress: Callable[[Iterable, int], Iterable] = lambda items, total: items) -> SplitReport:
    """Check that every image has its annotation, and open pairs to compare sizes and labels.

    Args:
        pairs (list[tuple[str, str]]): Image and annotation files.
        num_labels (int): Classes that annotations may name.
        reduce_zero_label (bool): Whether annotations hold 0 for what is not scored and 1 to ``num_labels`` for the
            classes, rather than 0 to ``num_labels - 1``. 255 is not scored in either.
        sample (int, optional): Open so many pairs, evenly spaced. None opens all. Defaults to None.
        progress (callable): From an iterable and its length to the same iterable, to show progress.

    Raises:
        UserInputError: With the first problem: an annotation that is missing, unreadable, of another size than its
            image or with a label out of range, or an image that is unreadable.
    """
    present = {}  # folder -> its files: one listing is faster than a check of every file
    for _, annotation in pairs:
        folder = os.path.dirname(annotation)
        if folder not in present:
            present[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
    missing = [pair for pair in pairs if os.path.basename(pair[1]) not in present[os.path.dirname(pair[1])]]
    if missing:
        raise UserInputError(f'{len(missing)} of {len(pairs)} images have no annotation, {missing[0][0]!r} first: '
                             f'expected {missing[0][1]!r}.')

    suffix = Path(pairs[0][1]).suffix
    report = SplitReport(len(pairs), sum(name.endswith(suffix) for names in present.values() for name in names))
    number = len(pairs) if sample is None else min(sample, len(pairs))
    chosen = [pairs[index * len(pairs) // number] for index in range(number)]
    unscored = pixels = 0
    with ThreadPoolExecutor(THREADS) as pool:
        for counts, size in progress(pool.map(lambda pair: open_pair(*pair, num_labels, reduce_zero_label), chosen),
                                     len(chosen)):
            report.checked += 1
            report.sizes.add(size)
            report.labels.update(label for label in np.flatnonzero(counts).tolist() if label != IGNORED)
            unscored += counts[IGNORED] + (counts[0] if reduce_zero_label else 0)
            pixels += counts.sum()
    report.unscored = float(unscored / pixels)
    return report


def open_pair(image: str, annotation: str, num_labels: int, reduce_zero_label: bool) -> tuple[np.ndarray, tuple]:
    """Decode an image and its annotation and compare them.

    Args:
        image (str): File.
        annotation (str): File.
        num_labels (int): See :func:`check_pairs`.
        reduce_zero_label (bool): See :func:`check_pairs`.

    Returns:
        tuple:

        - np.ndarray: (256, ) or more, pixels by raw label.
        - tuple[int, int]: Width and height.

    Raises:
        UserInputError: With the first problem.
    """
    size = decode(image)[1]
    labels, label_size = decode(annotation)
    if labels.ndim != 2:
        raise UserInputError(f'The annotation {annotation!r} is a picture of {labels.shape[2]} channels; expected one '
                             f'channel with a class number a pixel.')
    if size != label_size:
        raise UserInputError(f'The annotation {annotation!r} has {label_size[0]} x {label_size[1]} pixels and its '
                             f'image {size[0]} x {size[1]}; they must agree.')
    counts = np.bincount(labels.ravel().astype(np.int64), minlength=256)
    low, high = (0, num_labels) if reduce_zero_label else (0, num_labels - 1)
    wrong = [label for label in np.flatnonzero(counts).tolist() if not low <= label <= high and label != IGNORED]
    if wrong:
        raise UserInputError(
            f'The annotation {annotation!r} holds the label {wrong[-1]}; with {num_labels} classes and '
            f'reduce_zero_label={reduce_zero_label} labels are {low} to {high}, or {IGNORED} for what is not scored.')
    return counts, size


def decode(path: str) -> tuple[np.ndarray, tuple[int, int]]:
    """Pixels of a file, palettes as indices, and its (width, height) after the EXIF orientation.

    Raises:
        UserInputError: If it cannot be decoded.
    """
    try:
        with Image.open(path) as file:
            pixels = np.asarray(file)
            size = file.size
            if file.getexif().get(ORIENTATION) in SIDEWAYS:
                size = size[::-1]
    except (OSError, ValueError, SyntaxError) as error:
        raise UserInputError(f'{path!r} cannot be decoded ({error}); remove or replace it.') from error
    return pixels.astype(np.uint8) if pixels.dtype == bool else pixels, size


def check_segmentation_dataset(dataset: dict, num_classes: int | None = None, sample: int | None = 32,
                               key: str = 'dataset') -> SplitReport | None:
    """Check the data set of an mmsegmentation config.

    Args:
        dataset (dict): A dataset config, of any class that lists ``img_path`` and ``seg_map_path``.
        num_classes (int, optional): What the model predicts; None skips the comparison. Defaults to None.
        sample (int, optional): Open so many pairs; None opens all. Defaults to 32.
        key (str): The config key, for messages.

    Returns:
        SplitReport, optional: None where there are no annotations to check, or they are behind a URL.

    Raises:
        UserInputError: If the folder is missing or empty, if class numbers disagree, or for what :func:`check_pairs`
            finds.
    """
    if '://' in str(dataset.get('data_root')):
        return None
    dataset = {**dataset, 'pipeline': [], 'serialize_data': False}
    with DefaultScope.overwrite_default_scope('mmseg'):
        try:
            built = DATASETS.build(dataset)
        except (FileNotFoundError, NotADirectoryError, AssertionError) as error:
            raise UserInputError(f'{key}: the data set cannot be listed ({error}); set {key}.data_root and '
                                 f'{key}.data_prefix to folders that are there.') from error
    if not len(built):
        raise UserInputError(f'{key}: no image in {built.data_prefix.get("img_path")!r}; set {key}.data_root and '
                             f'{key}.img_suffix to where and what the images are.')
    classes = built.metainfo.get('classes') or ()
    if num_classes is not None and classes and len(classes) != num_classes:
        raise UserInputError(f'{key}: the data set has {len(classes)} classes and the head predicts {num_classes}; set '
                             f'model.decode_head.num_classes (and that of the auxiliary head) to {len(classes)}.')
    samples = [built.get_data_info(index) for index in range(len(built))]
    pairs = [(one['img_path'], one['seg_map_path']) for one in samples if one.get('seg_map_path')]
    labels = len(getattr(built, 'label_map', None) or classes) or num_classes
    if not pairs or not labels:
        return None
    try:
        return check_pairs(pairs, labels, getattr(built, 'reduce_zero_label', False), sample)
    except UserInputError as error:
        raise UserInputError(f'{key}: {error}') from error


def check_segmentation_config(cfg: Config, sample: int | None = 32) -> None:
    """Check every data set an mmsegmentation config is going to read.

    Args:
        cfg (Config): With ``train_dataloader``, ``val_dataloader`` and ``test_dataloader``, or some of them.
        sample (int, optional): Open so many pairs of each; None opens all. Defaults to 32.

    Raises:
        UserInputError: With the first problem.
    """
    heads = cfg.model.get('module', cfg.model).get('decode_head') or {}  # a test-time augmentation model has a module
    head = heads[-1] if isinstance(heads, (list, tuple)) else heads
    seen = []
    for loader in LOADERS:
        for key, dataset in innermost_datasets(f'{loader}.dataset', (cfg.get(loader) or {}).get('dataset')):
            files = {name: value for name, value in dataset.items() if name != 'pipeline'}
            if 'LoadAnnotations' in str(dataset.get('pipeline')) and files not in seen:
                seen.append(files)
                check_segmentation_dataset(dict(dataset), head.get('num_classes'), sample, key)
