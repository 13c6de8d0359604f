"""Curves of one or several runs, from the ``scalars.json`` that mmengine's local backend writes."""
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..errors import UserInputError

#: Okabe and Ito's colours, told apart by the colour-blind too
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
STYLES = ('-', '--', '-.', ':')
#: what a log holds beside what is learned
LEFT_OUT = ('epoch', 'iter', 'step', 'time', 'data_time', 'memory', 'base_lr')
#: constant levels of the k-NN probe, drawn beside a student's curve, knn/student, or knn/tiny.student of several
LEVELS = {'untrained': ':', 'teacher': '--'}


class Curve(NamedTuple):
    """One number over training.

    Attributes:
        unit (str): Of the steps, ``'iteration'`` or ``'epoch'``.
        steps (list[int]): Ascending.
        values (list[float]): As many.
    """
    unit: str
    steps: list[int]
    values: list[float]


def read_scalars(source: str | Path) -> dict[str, Curve]:
    """Every number that a run logged.

    Training figures are by iteration; evaluations between epochs (k-NN, accuracy) are by epoch.

    Args:
        source (str | Path): A work folder, one of its runs, or a ``scalars.json``. Of a run that was resumed the later
            part wins where both have a step.

    Returns:
        dict[str, Curve]: By key.

    Raises:
        UserInputError: If there is none.
    """
    source = Path(source)
    files = sorted(source.rglob('scalars.json')) if source.is_dir() else [source] if source.is_file() else []
    lines = [line for file in files for line in _json_lines(file)]
    if not any('step' in line for line in lines):
        raise UserInputError(f'No scalars.json with numbers in {str(source)!r}; give a work folder, in which training '
                             f'with the LocalVisBackend has left one.')
    by_epoch = any('epoch' in line for line in lines)
    found = defaultdict(dict)
    units = {}
    for line in lines:
        trains = 'iter' in line or 'lr' in line
        for key, value in line.items():
            if key not in LEFT_OUT and isinstance(value, (int, float)) and 'step' in line:
                units[key] = 'epoch' if by_epoch and not trains else 'iteration'
                found[key][line['step']] = float(value)
    return {key: Curve(units[key], *map(list, zip(*sorted(steps.items())))) for key, steps in found.items()}


def _json_lines(path: Path) -> list[dict]:
    lines = []
    for line in path.read_text(errors='replace').splitlines():
        try:
            line = json.loads(line)
        except ValueError:  # the last line of a run that was killed
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


def smooth(values: Sequence[float], weight: float) -> list[float]:
    """Exponential moving average, corrected for its start (as TensorBoard's): each value is a mean of all earlier ones.

    Non-finite numbers are kept and do not enter the mean.

    Args:
        values (Sequence[float]): In their order.
        weight (float): Of the past, in [0, 1); 0 changes nothing.

    Raises:
        UserInputError: If the weight is out of range.
    """
    if not 0 <= weight < 1:
        raise UserInputError(f'Smoothing is a weight of the past from 0 (none) to below 1, not {weight!r}.')
    mean, total, smoothed = 0., 0., []
    for value in values:
        if not math.isfinite(value):
            smoothed.append(value)
            continue
        mean, total = weight * mean + (1 - weight) * value, weight * total + 1 - weight
        smoothed.append(mean / total)
    return smoothed


def curves_figure(runs: dict[str, dict[str, Curve]], keys: Sequence[str] | None = None,
                  smoothing: float = 0.) -> Figure:
    """One panel a key, one colour a run; the k-NN panel has the untrained student's and the teacher's level as lines.

    Args:
        runs (dict): What :func:`read_scalars` gives, by name.
        keys (Sequence[str], optional): What to draw, in this order. None draws all but times. Defaults to None.
        smoothing (float): See :func:`smooth`; the raw curve stays visible behind. Defaults to 0.

    Raises:
        UserInputError: If no run has a key.
    """
    known = list(dict.fromkeys(key for curves in runs.values() for key in curves))
    for key in keys or ():
        if key not in known:
            raise UserInputError(f'No run logged {key!r}; there are {", ".join(known)}.')
    panels = list(keys or sorted((key for key in known if not _is_level(key)), key=_order))
    columns = min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(3.6 * columns, 2.4 * rows + 0.5), layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, key in zip(axes.flat, panels):
        for number, (name, curves) in enumerate(runs.items()):
            if key in curves:
                _draw(axis, name, curves, key, number, smoothing)
        axis.set_title(key, fontsize=9)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    for axis in list(axes.flat)[len(panels):]:
        axis.axis('off')
    handles = {label: handle for axis in axes.flat
               for handle, label in zip(*axis.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc='outside lower center', ncols=min(len(handles), 3), fontsize=8)
    return figure


def _draw(axis: Axes, name: str, curves: dict[str, Curve], key: str, number: int, smoothing: float) -> None:
    """Draw one run's curve; for a student's k-NN accuracy also the untrained student's and the teacher's level."""
    curve, colour = curves[key], COLOURS[number % len(COLOURS)]
    probed = key.startswith('knn/') and key.endswith('student')
    levels = {level: curves[found].values[-1] for level in LEVELS if probed
              for found in (f'knn/{level}', key[:-len('student')] + level) if found in curves}
    if 'untrained' in levels and curve.steps[0] > 0:  # that is the student at epoch 0
        curve = Curve(curve.unit, [0, *curve.steps], [levels['untrained'], *curve.values])
    style = STYLES[number // len(COLOURS) % len(STYLES)]
    marker = 'o' if len(curve.steps) < 30 else None
    if smoothing and curve.unit == 'iteration':
        axis.plot(curve.steps, curve.values, style, color=colour, alpha=0.25, linewidth=1)
    values = smooth(curve.values, smoothing if curve.unit == 'iteration' else 0.)
    axis.plot(curve.steps, values, style, color=colour, linewidth=1.4, marker=marker, markersize=3, label=name)
    axis.set_xlabel(curve.unit, fontsize=8)
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if _bare(key).startswith(('head_entropy', 'head_coverage', 'head_blur')):
        axis.set_ylim(-0.03, 1.05)
    if probed:
        axis.set_ylabel('k-NN top-1, %', fontsize=8)
        axis.margins(y=0.15)
    for level, value in levels.items():
        axis.axhline(value, linestyle=LEVELS[level], color=colour, linewidth=1)
        axis.annotate(level, (0.99, value), xycoords=('axes fraction', 'data'), fontsize=7, va='bottom', ha='right',
                      color=colour)


def _is_level(key: str) -> bool:
    """Whether a number is a level beside a curve."""
    return key.startswith('knn/') and key.endswith(tuple(LEVELS))


def _bare(key: str) -> str:
    """A key without the name of one of several students: ``tiny.loss_qk`` is a loss."""
    return key if key.startswith('knn/') else key.rpartition('.')[2]


def _order(key: str) -> tuple:
    """Losses first, then the learning rate, heads, probes and the rest."""
    groups = ('loss', 'lr', 'grad_norm', 'head_', 'knn/')
    return next((number for number, group in enumerate(groups) if _bare(key).startswith(group)), len(groups)), key
