"""List the settings in which configs differ, key by key."""
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ...project import project_root
from .runs import Run, read_dumped

#: say nothing about what was learned: marks of mmengine, and what tools/train.py fills in
LEFT_OUT = ('work_dir', 'launcher', 'resume', '_scope_', 'pin_memory', 'persistent_workers', 'collate_fn')
ABSENT = '–'
MAX_GROUP = 80  # characters of a group of settings that is written out


def differences(configs: list[Config]) -> list[tuple[str, list[str]]]:
    """Settings that are not the same in all configs, by key.

    Returns:
        list: ``'model.backbone.arch'`` and its value in each config, an en dash where it is absent. Steps of a pipeline
        and other lists of settings are numbered from 0. Where some configs have a group of settings alike and the
        others nothing of it, the group is one entry.
    """
    return list(compare('', [cleaned(config.to_dict()) for config in configs]))


def cleaned(value: Any) -> Any:
    """Without :data:`LEFT_OUT`; tuples as lists, and lists of settings as settings with numbers for keys."""
    if isinstance(value, dict):
        return {str(key): cleaned(item) for key, item in value.items() if key not in LEFT_OUT}
    if isinstance(value, (list, tuple)):
        if any(isinstance(item, dict) for item in value):
            return {str(number): cleaned(item) for number, item in enumerate(value)}
        return [cleaned(item) for item in value]
    return value


def compare(key: str, values: list[Any]) -> Iterator[tuple[str, list[str]]]:
    """What differs at and below a key; ``ABSENT`` stands for no value."""
    present = [value for value in values if value is not ABSENT]
    if len(present) == len(values) and all(value == values[0] for value in values):
        return
    alike = all(value == present[0] for value in present)
    if all(isinstance(value, dict) for value in present) and not (alike and len(present) < len(values)):
        for name in sorted({name for value in present for name in value}):
            yield from compare(f'{key}.{name}' if key else name,
                               [ABSENT if value is ABSENT else value.get(name, ABSENT) for value in values])
    else:
        yield key, [value if value is ABSENT else written(value) for value in values]


def written(value: Any) -> str:
    """A value; of a long group of settings what it builds and how many there are."""
    text = repr(value)
    if isinstance(value, dict) and len(text) > MAX_GROUP:
        return f'{value["type"]}, with {len(value) - 1} settings' if 'type' in value else f'{len(value)} settings'
    return text


def shipped_config(run: Run) -> tuple[str, Config, str] | None:
    """The config of this project that a run is best compared with: of the same name, or the nearest.

    Returns:
        tuple, optional: Its path, itself, and why it was chosen. None where no config has the run's kind of model.
    """
    root = project_root() / 'configs'
    files = sorted(file for file in root.rglob('*.py') if '_base_' not in file.parts)
    stems = {file.stem for file in run.folder.glob('*.py')}
    named = [file for file in files if file.stem in stems]
    if named:
        config = read_dumped(named[0])
        if config is not None:
            return relative(named[0], root), config, 'the config of the same name'
    # the miniatures first: reading all takes seconds
    for part in ([file for file in files if file.parent.name == 'mini'],
                 [file for file in files if file.parent.name != 'mini']):
        read = {file: read_dumped(file) for file in part}
        alike: dict[Path, Config] = {file: config for file, config in read.items()
                                     if config is not None and model_type(config) == model_type(run.config)}
        if alike:
            nearest = min(alike, key=lambda file: len(differences([run.config, alike[file]])))
            return relative(nearest, root), alike[nearest], 'the config that differs least'
    return None


def model_type(config: Config) -> str:
    """The algorithm's name, without its scope."""
    return str((config.get('model') or {}).get('type')).split('.')[-1]


def relative(file: Path, root: Path) -> str:
    """``configs/...`` as a user types it."""
    return file.relative_to(root.parent).as_posix()
