"""How the runs of a table are evaluated, and a look at that and at the model before the first run."""
import copy
import functools
import hashlib
import logging
import re
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope

from mimhd_mm.downstream.evaluate import check_labels
from mimhd_mm.downstream.inputs import check_architecture, read_students
from mimhd_mm.downstream.settings import EvaluatedStudent, Options, Settings, config_text, shipped_settings
from mimhd_mm.engine.launch import use_amp
from mimhd_mm.engine.loading import build_untrained
from mimhd_mm.engine.preflight import check_config, check_image_folder
from mimhd_mm.engine.preflight.pretrained import check_pretrained
from mimhd_mm.errors import UserInputError, root_cause
from mimhd_mm.evaluation.tasks import SEGMENTATIONS
from mimhd_mm.models import RelationViT
from mimhd_mm.weights.mae_files import FILES_WITH_DECODER, MAEFile, read_mae_file

from .plan import SeedRun, TableOptions, pretraining_datasets, read_base


def evaluation_options(run: SeedRun, task: str, options: TableOptions) -> Options:
    """What ``tools/evaluate_student.py`` would be asked for.

    Classification is on the images of pre-training, where no others are named (as the paper's top-1). Every method is
    evaluated with the configs of MIM-HD, so that only the student differs. Where it was pre-trained on Tiny ImageNet,
    configs for that take the place of ImageNet-1K's, as far as there are any of the same name.

    Args:
        run (SeedRun): Of which student.
        task (str): Of :data:`~mimhd_mm.evaluation.tasks.METRICS`.
        options (TableOptions): Of the table.
    """
    settings, root = shipped_settings()[options.kind], options.classification_root or options.pretrain_root
    if run.cfg is not None:
        _, dataset = next(pretraining_datasets(run.cfg))
        root = root or dataset.get('data_root')
        if str(dataset.type).split('.')[-1] == 'TinyImageNet':
            settings = on_tiny_imagenet(settings)
    return Options(checkpoints=[str(run.checkpoint)], settings=settings, tasks=[task], classification_root=root,
                   segmentation_root=options.segmentation_root, gpus=options.gpus, shorten=options.task_length,
                   seed=run.seed, amp=options.amp)


def on_tiny_imagenet(settings: Settings) -> Settings:
    """The same settings with the configs for Tiny ImageNet in place of ImageNet-1K's, where there are any."""
    def choose(path: Path) -> Path:
        other = path.with_name(path.name.replace('_in1k', '_tiny-imagenet'))
        return other if other.is_file() else path

    return Settings(settings.name, {width: {task: choose(path) for task, path in configs.items()}
                                    for width, configs in settings.configs.items()})


def evaluation_folder(run: SeedRun, task: str, options: TableOptions) -> Path:
    """Where a task of a run goes; its name ends in a hash of the task's config.

    Raises:
        UserInputError: If there is no config for the student's width, or the folder of the data is missing.
    """
    return run.folder / f'{task}-{hashlib.sha256(evaluation_text(run, task, options).encode()).hexdigest()[:10]}'


def evaluation_text(run: SeedRun, task: str, options: TableOptions) -> str:
    """The config of a task for a student of this run's width, but for the student's file and the work dir."""
    asked, width = evaluation_options(run, task, options), student_width(run)
    configs = asked.settings.configs.get(width)
    if configs is None:
        raise UserInputError(f'{run.folder.name} has a student {width} wide, and the {options.kind} settings have '
                             f'configs to evaluate a width of {" or ".join(map(str, sorted(asked.settings.configs)))}.')
    path = configs['linear' if task == 'knn' else task]
    return _evaluation_text(path, width, task, asked.settings.name, asked.classification_root, asked.segmentation_root,
                            asked.gpus, asked.shorten, asked.seed, asked.amp)


@functools.cache
def _evaluation_text(path: Path, width: int, task: str, name: str, classification_root: str | None,
                     segmentation_root: str | None, gpus: int, shorten: float, seed: int, amp: bool) -> str:
    options = Options(checkpoints=[], settings=Settings(name, {}), tasks=[task], gpus=gpus, shorten=shorten, seed=seed,
                      amp=amp, classification_root=classification_root, segmentation_root=segmentation_root)
    return config_text(read_base(path), EvaluatedStudent('student', width), task, Path('.'), options)


def student_width(run: SeedRun) -> int:
    """Width of the student in channels."""
    if run.imported:
        return _width_of_file(str(run.imported))
    return RelationViT.settings_of(run.cfg.model.backbone.get('arch', 'base'))['embed_dims']


@functools.cache
def _width_of_file(path: str) -> int:
    return read_mae_file(path).embed_dims


def check_run(run: SeedRun, options: TableOptions) -> None:
    """Check what its trainings will check when they start, start its model, and list the labelled images.

    Raises:
        UserInputError: With the first problem.
    """
    asked = evaluation_options(run, options.tasks[0], options)
    if run.cfg is None:
        student, = read_students(asked)
        for task in options.tasks:
            path = asked.settings.configs[student.width]['linear' if task == 'knn' else task]
            check_pretrained(Config.fromstring(config_text(read_base(path), student, task, run.folder,
                                                           evaluation_options(run, task, options)), '.py'))
    else:
        for key, dataset in pretraining_datasets(run.cfg):
            check_image_folder(key, dataset, 'name the folder of the images with --pretrain-root')
        check_teacher(run)
        check_config(with_amp(run.cfg, options.amp))
        check_architecture(untrained_student(run), asked)
    for task in options.tasks:
        _check_task(evaluation_text(run, task, options), task, options.amp)


@functools.cache
def _check_task(text: str, task: str, amp: bool) -> None:
    cfg = Config.fromstring(text, '.py')
    if task != 'knn':
        check_config(with_amp(cfg, amp))
    if task not in SEGMENTATIONS:
        check_labels(cfg, task)


def with_amp(cfg: Config, amp: bool) -> Config:
    """A config as ``tools/train.py --amp`` would change it, or as it is."""
    cfg = copy.deepcopy(cfg)
    if amp:
        use_amp(cfg)
    return cfg


def untrained_student(run: SeedRun) -> MAEFile:
    """What a checkpoint of the student will hold; the whole model is built, with the teacher's weights.

    Raises:
        UserInputError: If the model cannot be built, or the teacher's file does not fit.
    """
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)  # mmengine would log the start of every parameter
    try:
        with DefaultScope.overwrite_default_scope(run.cfg.get('default_scope', 'mmpretrain')):
            backbone = build_untrained(run.cfg, run.seed).backbone
    except UserInputError as error:
        raise UserInputError(f'{run.folder.name}: {root_cause(error)}') from None
    except Exception as error:  # an unknown argument, say
        message = ' '.join(f'{type(error).__name__}: {error}'.split())
        raise UserInputError(f'{run.folder.name}: its model cannot be built ({message}); correct the options of the '
                             f'row.') from error
    finally:
        logger.setLevel(level)
    return MAEFile(run.folder.name, '', 'openmmlab', encoder=backbone.state_dict(), decoder=None)


def check_teacher(run: SeedRun) -> None:
    """See that the teacher's file is there.

    Raises:
        UserInputError: If it is missing, with the config that trains it or the files that will do.
    """
    teacher = run.cfg.model.get('target_generator')
    if not teacher or Path(teacher.get('checkpoint') or '').is_file():
        return
    config = run.base
    needed = re.search(r'^# Needs the teacher: (\S+\.py)', config.read_text(), re.M)
    advice = f'train it with {needed[1]}' if needed else f'use {FILES_WITH_DECODER}'
    raise UserInputError(f"The teacher's file {str(teacher.get('checkpoint'))!r} of {config.name} is not there; "
                         f'{advice}, and name the file with --teacher.')


