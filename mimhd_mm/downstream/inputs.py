"""Check options, files and folders before students are evaluated."""
import importlib
import os
from pathlib import Path

from ..engine.launch import read_config_file
from ..engine.preflight.pretrained import heads_of_file
from ..errors import UserInputError
from ..evaluation.tasks import METRICS, SEGMENTATIONS
from ..models import RelationViT
from ..weights.mae_files import MAEFile, read_mae_file
from .settings import EvaluatedStudent, Options


def check_options(options: Options) -> None:
    """Check everything except the students' files and the data.

    Raises:
        UserInputError: With the first problem.
    """
    unknown = [task for task in options.tasks if task not in METRICS]
    if unknown or not options.tasks:
        raise UserInputError(f'--tasks are some of {", ".join(METRICS)}, not {", ".join(unknown) or "none"}.')
    if not 0 < options.shorten <= 1:
        raise UserInputError(f'--shorten is a factor above 0 and up to 1, not {options.shorten:g}.')
    if options.gpus < 1:
        raise UserInputError(f'--gpus is 1 or more, not {options.gpus}.')
    if set(SEGMENTATIONS) & set(options.tasks):
        try:
            importlib.import_module('mmseg')
        except ImportError as error:
            raise UserInputError(f'Segmentation needs mmsegmentation, which cannot be imported ({error}); install '
                                 f'requirements/run.txt, or leave segmentation out of --tasks.') from error
    folder = Path(options.work_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserInputError(f'--work-dir {options.work_dir!r} cannot be made ({error}); name another.') from error
    if not os.access(folder, os.W_OK):
        raise UserInputError(f'--work-dir {options.work_dir!r} cannot be written to; name another.')


def read_students(options: Options) -> list[EvaluatedStudent]:
    """The rows of the table, untrained networks last.

    Raises:
        UserInputError: If a file is no student's or no config fits it, or two have the same name.
    """
    students = []
    for checkpoint in options.checkpoints:
        file, path = read_mae_file(checkpoint), Path(checkpoint).resolve()
        if file.source != 'openmmlab':
            raise UserInputError(f'{checkpoint!r} has no tensor under `backbone.`, which the official MAE files lack '
                                 f'too; convert those with tools/model_converters/vit_to_mmpretrain.py.')
        check_architecture(file, options)
        name, heads = f'{path.parent.name}-{path.stem}', heads_of_file(path)
        if heads and len(heads) != file.num_layers:
            raise UserInputError(f'{checkpoint!r} has {file.num_layers} blocks, but its meta tells the heads of '
                                 f'{len(heads)}; give the file as the training or the export wrote it.')
        if name in [student.name for student in students]:
            raise UserInputError(f'Two checkpoints would both be called {name!r}, by folder and file; evaluate '
                                 f'{checkpoint!r} in a --work-dir of its own.')
        scaled = any('.gamma' in key for key in file.encoder)
        students.append(EvaluatedStudent(name, file.embed_dims, str(path), file.sha256, heads, scaled))
        counts = ' and '.join(map(str, sorted(set(heads)))) + ' heads' if heads else "the config's head count"
        print(f'{name}: {file.embed_dims} wide, {file.num_layers} blocks, {counts}, {file.num_patches} patches of '
              f'{file.patch_size} px')
    if options.untrained:
        heads = {student.width: student.heads for student in reversed(students)}
        students += [EvaluatedStudent('untrained' if len(heads) == 1 else f'untrained-{width}', width, heads=number)
                     for width, number in sorted(heads.items())]
    return students


def check_architecture(file: MAEFile, options: Options) -> None:
    """Check that the settings have a config for a student of these sizes.

    Raises:
        UserInputError: If they have none; the message names the sizes that fit.
    """
    name, widths = options.settings.name, sorted(options.settings.configs)
    if file.embed_dims not in widths:
        raise UserInputError(f'{file.path!r} is {file.embed_dims} wide, and the settings {name!r} have configs for a '
                             f'width of {" or ".join(map(str, widths))}; choose other --settings.')
    if 'layers.0.ffn.layers.0.0.weight' not in file.encoder:
        raise UserInputError(f'{file.path!r} is no plain vision transformer, its blocks have other MLPs; give a '
                             f'student of this project.')
    backbone = read_config_file(options.settings.configs[file.embed_dims]['linear']).model.backbone
    arch = RelationViT.settings_of(backbone.arch)
    expected = (arch['num_layers'], arch['feedforward_channels'], backbone.patch_size)
    found = (file.num_layers, file.feedforward_channels, file.patch_size)
    if found != expected:
        sizes = '{} blocks, MLPs {} wide and patches of {} px'
        raise UserInputError(f'{file.path!r} has {sizes.format(*found)}, and a student {file.embed_dims} wide has '
                             f'{sizes.format(*expected)} in the settings {name!r}; choose other --settings.')


def check_folder(folder: Path, text: str) -> None:
    """Check that a folder is empty or belongs to this run.

    Raises:
        UserInputError: If it holds anything that does not come from this config.
    """
    config = folder / 'config.py'
    if folder.is_dir() and any(folder.iterdir()) and not (config.is_file() and config.read_text() == text):
        raise UserInputError(f'{str(folder)!r} holds something else, or a run of another checkpoint or of other '
                             f'settings; remove it, or give another --work-dir.')
