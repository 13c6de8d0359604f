"""Check the arguments of a report (work dirs, names, tables, the file to write) before long work."""
import os
import re
from collections.abc import Sequence
from pathlib import Path

from ...errors import UserInputError
from .runs import is_run
from .tables import ReportTable, find_tables

MAX_NAME = 40  # characters of a run's name, beyond which it is shortened


def check_target(target: Path, overwrite: bool) -> None:
    """Check that the page can be written, before anything is read.

    Raises:
        UserInputError: If it cannot.
    """
    if target.is_dir() or (target.exists() and not overwrite):
        raise UserInputError(f'{str(target)!r} exists already and is left as it is; name another file with -o'
                             + ('.' if target.is_dir() else ', or pass --overwrite.'))
    if not target.parent.is_dir() or not os.access(target.parent, os.W_OK):
        raise UserInputError(f'{str(target)!r} cannot be written: {str(target.parent)!r} is no folder that files can '
                             f'be made in; name a file in one with -o.')


def resolve(work_dirs: Sequence[str]) -> tuple[list[Path], list[ReportTable]]:
    """The runs of the given folders and the tables that lie in them.

    Raises:
        UserInputError: If a folder is missing, holds nothing or comes twice.
    """
    folders, tables = [], []
    for work_dir in work_dirs:
        folder = Path(work_dir)
        if not folder.is_dir():
            raise UserInputError(f'No folder {work_dir!r}; give the work dir of a run.')
        if (folder / 'vis_data').is_dir() or (folder.name == 'vis_data'):
            raise UserInputError(f'{work_dir!r} is a part of a run; give its work dir, the folder above the '
                                 f'time-stamped ones.')
        inside = [folder] if is_run(folder) else sorted(
            path for path in folder.glob('runs/*/pretrain') if is_run(path))  # of run_table
        own = find_tables(folder)
        if not inside and not own:
            raise UserInputError(f'{work_dir!r} holds no run: there is no */vis_data/scalars.json in it; give the '
                                 f'folder that tools/train.py wrote to, its --work-dir.')
        folders += inside
        tables += own
    resolved = [folder.resolve() for folder in folders]
    twice = next((folder for folder in resolved if resolved.count(folder) > 1), None)
    if twice is not None:
        raise UserInputError(f'{str(twice)!r} is given twice; name each run once.')
    if not folders:
        raise UserInputError(f'{", ".join(map(repr, work_dirs))} hold tables but no run; give at least one work dir '
                             f'of tools/train.py, and the tables with --tables.')
    return folders, tables


def check_names(names: Sequence[str], folders: list[Path]) -> list[str]:
    """Names as they were given.

    Raises:
        UserInputError: If they are not one a run, each another.
    """
    if len(names) != len(folders) or len(set(names)) != len(names):
        raise UserInputError(f'--names needs {len(folders)} different names, one a run in the order of the folders, '
                             f'not {list(names)}.')
    return list(names)


def name_folders(folders: list[Path]) -> list[str]:
    """The shortest endings of the paths that tell them apart; run_table's folder ``pretrain`` is called as its row.

    Of long names that are built alike, what all have in common is left out: a card tells the whole path.
    """
    parts = [(folder.resolve().parent if folder.name == 'pretrain' else folder.resolve()).parts for folder in folders]
    length = 1
    while length < max(map(len, parts)) and len({part[-length:] for part in parts}) < len(parts):
        length += 1
    names = ['/'.join(part[-length:]) for part in parts]
    if len(names) > 1 and max(map(len, names)) > MAX_NAME:
        words = [re.split('[-_/]', name) for name in names]
        shorter = ['-'.join(word for word in own if not all(word in others for others in words)) for own in words]
        names = shorter if all(shorter) and len(set(shorter)) == len(names) else names
    return names
