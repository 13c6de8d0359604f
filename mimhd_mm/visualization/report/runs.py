"""Read the files of a run from its work dir, joined over its resumed parts."""
import json
import math
import pickle
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from mmengine.config import Config

from ...compat import load_checkpoint_safely
from ...errors import UserInputError
from ...weights.checkpoint_files import newest_checkpoint
from ..routing import read_head_weights

#: pictures that are shown, as the hooks and tools name their files
PICTURES = ('head_routing', 'attention', 'reconstruction')
#: beside the numbers of a training or validation line, no curves
AXES = ('step', 'iter', 'epoch')
LOG_LINE = re.compile(r'^(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) - mmengine - (\w+) - (.*)$')
SETTING = re.compile(r'^ {4}(\w[^:]*): (.+)$')
#: a page of compiler flags
LEFT_OUT_SETTINGS = ('PyTorch compiling details', )


@dataclass
class RunCurve:
    """One number through training.

    Attributes:
        axis (str): ``'iteration'`` or ``'epoch'``, what its steps count.
        group (str): ``'train'``, ``'knn'`` or ``'validation'``.
        points (dict): Step -> value; None where it was not finite.
    """
    axis: str
    group: str
    points: dict[int, float | None] = field(default_factory=dict)


@dataclass
class Run:
    """A work dir.

    Attributes:
        name (str): How the report calls it.
        folder (Path): The work dir.
        starts (list[Path]): Its time-stamped folders: the last new start, and each time that was resumed.
        replaced (int): Time-stamped folders of earlier starts that the last new one put an end to.
        config (Config, optional): As dumped at the last start; None where it cannot be read.
        curves (dict): Key of the log -> :class:`RunCurve`.
        weights (list[dict]): Readings of ``HeadRoutingHook``, by iteration.
        pictures (dict): Kind, student -> iteration -> PNG file; iteration None is a file of a tool, student '' the one.
        environment (dict): What the log says of the machine, and the checkpoint of the commit.
        warnings (list): Text and number of the log's warnings, alike ones counted together.
        hours (float): Between the first and the last line of each log, summed.
    """
    name: str
    folder: Path
    starts: list[Path]
    replaced: int
    config: Config | None
    curves: dict[str, RunCurve] = field(default_factory=dict)
    weights: list[dict] = field(default_factory=list)
    pictures: dict[tuple[str, str], dict[int | None, Path]] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    warnings: list[tuple[str, int]] = field(default_factory=list)
    hours: float = 0.

    def last(self, key: str) -> float | None:
        """The last finite value of a curve, None without one."""
        finite = [value for value in self.curves[key].points.values() if value is not None] if key in self.curves \
            else []
        return finite[-1] if finite else None


def is_run(folder: Path) -> bool:
    """Whether mmengine has logged a training here."""
    return any(folder.glob('*/vis_data/scalars.json'))


def read_run(folder: Path, name: str) -> Run:
    """Read a work dir.

    Raises:
        UserInputError: If nothing was logged there.
    """
    starts = [file.parents[1] for file in sorted(folder.glob('*/vis_data/scalars.json'))]
    lines = {start: json_lines(start / 'vis_data' / 'scalars.json') for start in starts}
    starts = [start for start in starts if lines[start]]
    if not starts:
        raise UserInputError(f'{str(folder)!r} holds no run: no */vis_data/scalars.json in it has a line that can be '
                             f'read; give the folder that tools/train.py wrote to, its --work-dir.')
    configs = {start: read_dumped(start / 'vis_data' / 'config.py') for start in starts}
    # a training that did not resume what was there has nothing to do with it
    first = max((i for i, start in enumerate(starts) if i and not was_resumed(configs[start])), default=0)
    run = Run(name, folder, starts[first:], first, configs[starts[-1]])
    weights: dict[tuple[str, str], dict[int, dict]] = {}
    for start in run.starts:
        for key, curve in read_curves(lines[start], configs[start]).items():
            run.curves[key] = curve if key not in run.curves else \
                RunCurve(curve.axis, curve.group, join(run.curves[key].points, curve.points))
        for key, readings in read_weights(start / 'vis_data' / 'head_weights.json').items():
            weights[key] = join(weights.get(key, {}), readings)
        for key, files in read_pictures(start / 'vis_data' / 'vis_image').items():
            run.pictures[key] = join(run.pictures.get(key, {}), files)
    run.weights = sorted((reading for readings in weights.values() for reading in readings.values()),
                         key=lambda reading: reading['iter'])
    for kind in PICTURES:  # of tools/analysis_tools, put into the work dir
        for file in sorted(folder.glob(f'{kind}*.png')):
            run.pictures[kind, file.stem[len(kind):].strip('-_')] = {None: file}
    read_logs(run)
    run.environment.update(read_checkpoint(folder))
    return run


def join(old: dict, new: dict) -> dict:
    """Steps -> values of a training and of its continuation, which replaces all from its own first step on."""
    if not new:
        return old
    begin = min(new)
    return {**{step: value for step, value in old.items() if step < begin}, **new}


def json_lines(file: Path) -> list[dict]:
    """The objects of a file with one a line; incomplete lines are left out."""
    entries = []
    for line in file.read_text(errors='replace').splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries


def read_dumped(file: Path) -> Config | None:
    """Read a config that mmengine dumped, without importing its modules; None if that fails."""
    try:
        return Config.fromfile(file, import_custom_modules=False)
    except Exception:  # a config is a program, and may fail as any program may
        return None


def was_resumed(config: Config | None) -> bool:
    """Whether a start resumed the run; assumed if its config is missing."""
    return config is None or bool(config.get('resume'))


def read_curves(lines: list[dict], config: Config | None) -> dict[str, RunCurve]:
    """Key -> curve of one start.

    Training lines say their iteration. The probe counts in epochs, validation in what the config's logger is told to.
    """
    logger = ((config or {}).get('default_hooks') or {}).get('logger') or {}
    by_epoch = logger.get('log_metric_by_epoch', True)
    curves: dict[str, RunCurve] = {}
    for line in lines:
        step = line.get('step')
        if not isinstance(step, int):
            continue
        for key, value in line.items():
            if key in AXES or isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            group = 'knn' if key.startswith('knn/') else 'train' if 'iter' in line else 'validation'
            if group == 'validation' and key in ('time', 'data_time'):
                continue
            axis = 'iteration' if group == 'train' or (group == 'validation' and not by_epoch) else 'epoch'
            curve = curves.setdefault(key, RunCurve(axis, group))
            curve.points[step] = float(value) if math.isfinite(value) else None
    return curves


def read_weights(file: Path) -> dict[tuple[str, str], dict[int, dict]]:
    """Pair, student -> iteration -> reading of ``HeadRoutingHook``."""
    readings: dict[tuple[str, str], dict[int, dict]] = {}
    try:
        lines = read_head_weights(file)
    except UserInputError:  # no file, or no whole line in it yet
        return readings
    for reading in lines:
        reading['W'] = [[weight if math.isfinite(weight) else None for weight in row] for row in reading['W']]
        readings.setdefault((reading['pair'], reading.get('student', '')), {})[reading['iter']] = reading
    return readings


def read_pictures(folder: Path) -> dict[tuple[str, str], dict[int, Path]]:
    """Kind, student -> iteration -> file, of what the hooks have drawn."""
    pictures: dict[tuple[str, str], dict[int, Path]] = {}
    for kind in PICTURES:
        for file in folder.glob(f'{kind}*.png'):
            match = re.fullmatch(rf'{kind}(?:-(.+))?_(\d+)', file.stem)
            if match:
                pictures.setdefault((kind, match[1] or ''), {})[int(match[2])] = file
    return {key: dict(sorted(files.items())) for key, files in pictures.items()}


def read_logs(run: Run) -> None:
    """Environment of the last start, warnings and time of all."""
    warnings: Counter = Counter()
    for start in run.starts:
        file = start / f'{start.name}.log'
        if not file.is_file():
            continue
        settings, times, head = {}, [], True
        for line in log_lines(file):
            match = LOG_LINE.match(line)
            if match:
                times.append(match[1])
                head = head and not match[3].startswith('Config')  # below it are the config's lines
                if match[2] in ('WARNING', 'ERROR', 'CRITICAL'):
                    warnings[without_names(match[3])] += 1
            elif head and SETTING.match(line):
                key, value = SETTING.match(line).groups()
                if key not in LEFT_OUT_SETTINGS:
                    settings[key] = value.strip()
        run.environment = settings
        run.hours += hours_between(times)
    run.warnings = warnings.most_common()


def log_lines(file: Path) -> Iterator[str]:
    """The lines of a log, which may be long."""
    with open(file, errors='replace') as lines:
        for line in lines:
            yield line.rstrip('\n')


def without_names(warning: str) -> str:
    """A warning without the parameter it begins with, so that one about each of a hundred counts as one."""
    return re.sub(r'^\w+(\.\w+)+ is skipped', '(parameter) is skipped', warning)


def hours_between(times: list[str]) -> float:
    """Between the first and the last time of a log."""
    try:
        first, last = (datetime.strptime(time, '%Y/%m/%d %H:%M:%S') for time in (times[0], times[-1]))
    except (IndexError, ValueError):
        return 0.
    return (last - first).total_seconds() / 3600


def read_checkpoint(folder: Path) -> dict[str, str]:
    """Commit and teacher as the last checkpoint tells them; the commit as run_table noted it where it did."""
    found = {}
    checkpoint = newest_checkpoint(folder)
    if checkpoint is not None:
        try:
            meta = load_checkpoint_safely(checkpoint).get('meta', {})
        except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, AttributeError) as error:
            return {'last checkpoint': f'{checkpoint.name} cannot be read ({type(error).__name__})'}
        found['last checkpoint'] = checkpoint.name
        # mmengine writes its version and the commit of the folder that the run was started in, as one word
        version = re.fullmatch(r'(.*?)([0-9a-f]{40})', str(meta.get('mmengine_version', '')))
        if version:
            found['commit'] = version[2][:12]
        teacher = meta.get('teacher') or {}
        if teacher:
            found['teacher'] = f'{teacher.get("path")}, sha256 {str(teacher.get("sha256"))[:12]}'
    note = folder.parent / 'pretrain.json'
    if folder.name == 'pretrain' and note.is_file():
        try:
            found['commit'] = json.loads(note.read_text())['environment']['commit']
        except (json.JSONDecodeError, KeyError, TypeError):
            pass
    return found
