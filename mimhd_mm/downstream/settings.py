"""The configs that evaluate a student of a given width, and the settings of each run."""
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pprint import pformat

from mmengine.config import Config

from ..datasets.nesting import LOADERS
from ..errors import UserInputError
from ..evaluation.tasks import SEGMENTATIONS
from ..models import RelationViT
from ..project import project_root


@dataclass(frozen=True)
class Settings:
    """Configs for evaluation, by width of the student.

    Attributes:
        name (str): For the table.
        configs (dict): Width -> task ('linear', 'finetune', 'linear_segmentation', 'segmentation') -> config file.
            k-NN takes images and normalisation of 'linear'.
    """
    name: str
    configs: dict[int, dict[str, Path]]


def shipped_settings() -> dict[str, Settings]:
    """The settings of this project: ``'mini'`` for small machines, ``'full'`` for ImageNet-1K and ADE20K."""
    finetune, segmentation = (project_root() / 'configs' / name for name in ('finetune', 'segmentation'))
    mini = 'vit-micro-p8_mimhd-5e-pre_1xb{}_tiny-imagenet-64px.py'
    full = 'vit-{}-p16_mimhd-100e-pre_8xb{}_in1k.py'
    return {
        'mini': Settings('mini', {96: dict(
            linear=finetune / 'mini' / mini.format('256-linear-coslr-20e'),
            finetune=finetune / 'mini' / mini.format('64-coslr-10e'),
            linear_segmentation=segmentation / 'mini' / 'mimhd-vit-micro-p8_linear_1xb8-1600_camvid-128x128.py',
            segmentation=segmentation / 'mini' / 'mimhd-vit-micro-p8_upernet_1xb8-1k_camvid-128x128.py')}),
        'full': Settings('full', {width: dict(
            linear=finetune / full.format(size, '2048-amp-linear-coslr-90e'),
            finetune=finetune / full.format(size, '128-amp-coslr-100e'),
            linear_segmentation=segmentation / f'mimhd-vit-{size}_linear_8xb2-amp-40k_ade20k-512x512.py',
            segmentation=segmentation / f'mimhd-vit-{size}_upernet_8xb2-amp-160k_ade20k-512x512.py')
            for width, size in ((768, 'base'), (384, 'small'), (192, 'tiny'))}),
    }


@dataclass(frozen=True)
class Options:
    """The arguments of ``tools/evaluate_student.py``.

    Attributes:
        checkpoints (sequence[str]): Files with a student's tensors under ``backbone.``.
        settings (Settings): Configs.
        tasks (sequence[str]): Of :data:`METRICS`.
        untrained (bool): Whether the network before any training is evaluated too, once a width, with the head counts
            of the first student of that width. Defaults to False.
        classification_root (str, optional): Folder with ``train`` and ``val``. None takes the config's.
        segmentation_root (str, optional): Folder with images and annotations. None takes the config's.
        work_dir (str): For every run and the table. Defaults to ``'work_dirs/evaluate_student'``.
        gpus (int): Processes of each training. Defaults to 1.
        shorten (float): Factor on the length of every training, above 0 and up to 1. Defaults to 1.
        seed (int): Of every run. Defaults to 0.
        amp (bool): Whether ``tools/train.py`` gets ``--amp``. Defaults to False.
    """
    checkpoints: Sequence[str]
    settings: Settings
    tasks: Sequence[str]
    untrained: bool = False
    classification_root: str | None = None
    segmentation_root: str | None = None
    work_dir: str = 'work_dirs/evaluate_student'
    gpus: int = 1
    shorten: float = 1.
    seed: int = 0
    amp: bool = False


@dataclass(frozen=True)
class EvaluatedStudent:
    """A row of the table.

    Attributes:
        name (str): Of the row and its folder.
        width (int): Of the network.
        path (str, optional): The checkpoint; None for the network before any training.
        sha256 (str, optional): Its hash, in hexadecimal.
        heads (list[int], optional): Of each block; None where the file does not tell.
        layer_scale (bool): Whether its blocks scale their outputs, as CAE's do. Defaults to False.
    """
    name: str
    width: int
    path: str | None = None
    sha256: str | None = None
    heads: list[int] | None = None
    layer_scale: bool = False


def config_text(base: Config, student: EvaluatedStudent, task: str, folder: Path, options: Options) -> str:
    """A config that inherits ``base`` and sets start, data, seed, place and length; the lines on top tell runs apart.

    Args:
        base (Config): The config of the task.
        student (EvaluatedStudent): What it starts from.
        task (str): For a look at the data.
        folder (Path): Of the task. The run gets a folder in it: mmengine writes a file of the config's name there.
        options (Options): The rest.

    Raises:
        UserInputError: If the folder of the data is missing.
    """
    changes = dict(
        work_dir=(folder / 'run').as_posix(), randomness=dict(seed=options.seed), auto_scale_lr=dict(enable=True),
        model=dict(backbone=backbone_changes(base, student)), **schedule_changes(base, options.shorten))
    data = segmentation_changes if task in SEGMENTATIONS else classification_changes
    for key, value in data(base, options).items():
        changes[key] = {**changes.get(key, {}), **value}
    amp = ' --amp' if options.amp else ''
    return '\n'.join([
        f'# Written by tools/evaluate_student.py: {task} of {student.name}, settings {options.settings.name!r}, '
        f'{options.gpus} process(es){amp}.',
        f'# Student: {student.path}, sha256 {student.sha256}',
        f'# What is inherited, as it was then: sha256 {sha256_of_text(base.pretty_text)}',
        f'_base_ = {Path(base.filename).resolve().as_posix()!r}', '',
        *(f'{key} = {pformat(value, width=110, sort_dicts=False)}' for key, value in changes.items())]) + '\n'


def backbone_changes(base: Config, student: EvaluatedStudent) -> dict:
    """Changes to ``model.backbone``: its start and the settings that differ from the config."""
    changes = dict(init_cfg=student.path and dict(type='Pretrained', prefix='backbone.', checkpoint=student.path))
    arch = RelationViT.settings_of(base.model.backbone.arch)
    if student.heads not in (None, [arch['num_heads']] * arch['num_layers']):
        changes['layer_cfgs'] = [dict(num_heads=number) for number in student.heads]
    if student.layer_scale:
        changes['layer_scale_init_value'] = 1.  # makes the parameters; the file fills them
    return changes


def classification_changes(base: Config, options: Options) -> dict:
    """Changes for the image folder, and for its class count if that differs from the config.

    Raises:
        UserInputError: If ``train`` or ``val`` is missing, or ``train`` holds no class folder.
    """
    root = data_root(base, options.classification_root, '--classification-root', ('train', 'val'))
    number = sum(entry.is_dir() for entry in (root / 'train').iterdir())
    if number < 2:
        raise UserInputError(f'{str(root / "train")!r} holds {number} class folders; --classification-root is a folder '
                             f'whose `train` holds a folder of images for each class.')
    dataset, changes = dict(data_root=root.as_posix()), {}
    if number != base.model.head.num_classes:
        changes.update(model=dict(head=dict(num_classes=number)), data_preprocessor=dict(num_classes=number))
        # mmpretrain's ImageNet has its thousand classes built in; this one reads the folders
        dataset.update(type='mimhd_mm.TinyImageNet')
    if number < 5:  # top-5 is not defined
        changes.update({f'{name}_evaluator': dict(topk=(1, )) for name in ('val', 'test')})
    return {**changes, **{loader: dict(dataset=dataset) for loader in LOADERS}}


def segmentation_changes(base: Config, options: Options) -> dict:
    """Changes for the folder of images and annotations.

    Raises:
        UserInputError: If one that the config reads is missing.
    """
    prefixes = {prefix for loader in LOADERS[:2] for prefix in base[loader].dataset.data_prefix.values()}
    root = data_root(base, options.segmentation_root, '--segmentation-root', sorted(prefixes))
    return {loader: dict(dataset=dict(data_root=root.as_posix())) for loader in LOADERS}


def data_root(base: Config, given: str | None, option: str, parts: Sequence[str]) -> Path:
    """The absolute folder of a task's data, after a check of its content.

    Raises:
        UserInputError: If a part is missing.
    """
    root = Path(given or base.train_dataloader.dataset.data_root)
    missing = [part for part in parts if not (root / part).is_dir()]
    if missing:
        raise UserInputError(f'No folder {str(root / missing[0])!r}; give the folder that holds {", ".join(parts)} '
                             f'with {option}.')
    return root.resolve()


def schedule_changes(base: Config, factor: float) -> dict:
    """The length of training times a factor, in whole epochs or iterations and at least one.

    Borders between parts of the learning rate's schedule move along and stay one step from the start and from each
    other where there are steps enough; a part that is left with none is dropped.

    Args:
        base (Config): With ``train_cfg`` and ``param_scheduler``, a list.
        factor (float): 0 < factor <= 1; 1 changes nothing.
    """
    if factor == 1:
        return {}
    key = 'max_iters' if 'max_iters' in base.train_cfg else 'max_epochs'
    full = base.train_cfg[key]
    length = max(1, round(factor * full))

    def scale(step: int) -> int:
        scaled = round(step * length / full)
        return max(scaled, 1) if step and length > 1 else scaled

    schedulers = []
    for scheduler in map(dict, base.param_scheduler):
        begin, end = scale(scheduler['begin']), scale(scheduler['end'])
        if begin < end:
            part = dict(T_max=end - begin) if 'T_max' in scheduler else {}
            schedulers.append({**scheduler, 'begin': begin, 'end': end, **part})
    interval = base.default_hooks.checkpoint.interval
    return dict(
        train_cfg={key: length, 'val_interval': max(1, round(factor * base.train_cfg.val_interval))},
        param_scheduler=schedulers,
        default_hooks=dict(checkpoint=dict(interval=max(1, round(factor * interval)))))


def sha256_of_text(text: str) -> str:
    """Hash of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()
