"""Read the head weights that ``HeadRoutingHook`` recorded, and draw them."""
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from ..errors import UserInputError
from .curves import COLOURS

FILE_NAME = 'head_weights.json'
COLOUR_MAP = 'viridis'  # as readable to the colour-blind, and in grey
MAX_LABELLED = 200  # cells of a heat map, up to which each has its number
#: what a reading says of W in a number each; older runs lack the last two
FIGURES = ('entropy', 'coverage', 'spread', 'distinct', 'blur')


def read_head_weights(source: str | Path) -> list[dict]:
    """Read the readings of ``HeadRoutingHook``.

    Args:
        source (str | Path): A work folder, one of its runs, or a ``head_weights.json``. Of a run that was resumed the
            later part wins where both have an iteration.

    Returns:
        list[dict]: ``iter``, ``epoch``, ``pair``, ``W`` (M2 lists of M1 numbers), of :data:`FIGURES` those that the run
        wrote and, where a model teaches several, ``student``; by iteration.

    Raises:
        UserInputError: If there is none.
    """
    source = Path(source)
    files = sorted(source.rglob(FILE_NAME)) if source.is_dir() else [source] if source.is_file() else []
    readings = {}
    for file in files:
        for line in file.read_text(errors='replace').splitlines():
            try:
                reading = json.loads(line)
                readings[reading['iter'], reading['pair'], reading.get('student', '')] = dict(
                    reading, W=np.array(reading['W'], dtype=float).reshape(len(reading['W']), -1).tolist())
            except (ValueError, KeyError, TypeError):  # the last line of a run that was killed
                continue
    if not readings:
        raise UserInputError(f'No head weights in {str(source)!r}; a run writes {FILE_NAME} where its config has a '
                             f'HeadRoutingHook. Without that, give the config and its checkpoints.')
    return [readings[key] for key in sorted(readings)]


def relation_name(pair: str) -> str:
    """``'qk'`` as it is written: Q-K."""
    return '-'.join(pair.upper())


def routing_figure(weights: dict[str, np.ndarray], title: str = '') -> Figure:
    """Heat maps of W side by side, one a relation.

    Args:
        weights (dict[str, np.ndarray]): By pair, (M2, M1); rows sum to 1.
        title (str): Above all of them. Defaults to none.
    """
    return history_figure([('', weights)], title=title)


def history_figure(moments: Sequence[tuple], figures: dict[str, dict[str, list]] | None = None,
                   title: str = '') -> Figure:
    """Heat maps of W, a row a relation and a column a moment; then, if given, how its figures went.

    Args:
        moments (Sequence[tuple]): Pairs of a caption and W by pair, each (M2, M1). One moment is drawn with its
            relations side by side.
        figures (dict, optional): By pair, lists under ``iter`` (numbers, or names in their order) and any of
            :data:`FIGURES`, drawn as curves at the end of the row. Defaults to None.
        title (str): Above all of them. Defaults to none.
    """
    pairs = list(moments[0][1])
    students, teachers = np.shape(moments[0][1][pairs[0]])
    columns = len(moments) + bool(figures)
    rows, columns = (1, len(pairs)) if columns == 1 else (len(pairs), columns)
    cell = 0.26 if students * teachers <= MAX_LABELLED else 0.16  # inches
    width, height = max(cell * teachers + 0.8, 2.2), max(cell * students + 1.0, 2.0)
    figure = Figure(figsize=(columns * width + 0.8, rows * height + 0.8), layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False)
    maps = axes if not figures else axes[:, :-1]
    cells = zip(maps.flat, [(pair, caption, weights[pair]) for pair in pairs for caption, weights in moments])
    norm = PowerNorm(0.5, 0, 1)  # small shares differ visibly, and frames of a film share the scale
    for number, (axis, (pair, caption, weight)) in enumerate(cells):
        image = _heat_map(axis, np.asarray(weight, dtype=float), norm)
        axis.set_title(f'{relation_name(pair)}, {caption}' if caption else relation_name(pair), fontsize=8)
        if number % maps.shape[1] == 0:
            axis.set_ylabel('student head', fontsize=8)
    for row, pair in zip(axes, pairs if figures else []):
        _curves(row[-1], figures[pair], np.shape(moments[0][1][pair])[0])
        row[-1].set_title(f'{relation_name(pair)}, over training', fontsize=8)
    bar = figure.colorbar(image, ax=list(axes.flat), location='bottom', shrink=0.6, aspect=40, pad=0.02,
                          ticks=[0, 0.05, 0.2, 0.5, 1])
    bar.set_ticklabels(['0', '5', '20', '50', '100'])
    bar.ax.tick_params(labelsize=7)
    bar.set_label('share of the teacher head in what the student head learns, % (each row sums to 100)', fontsize=7)
    if title:
        figure.suptitle(title, fontsize=9)
    return figure


def _heat_map(axis, weight: np.ndarray, norm: PowerNorm):
    """One W (M2, M1) with numbered heads, counted from 1, and each share in percent where there is room."""
    students, teachers = weight.shape
    image = axis.imshow(weight, cmap=COLOUR_MAP, norm=norm, aspect='equal')
    axis.set_xlabel('teacher head', fontsize=8)
    for ticks, labels, number in ((axis.set_xticks, axis.set_xticklabels, teachers),
                                  (axis.set_yticks, axis.set_yticklabels, students)):
        step = 1 if number <= 12 else 2
        ticks(range(0, number, step))
        labels(range(1, number + 1, step), fontsize=6)
    if students * teachers <= MAX_LABELLED:
        for row, column in np.ndindex(weight.shape):
            axis.text(column, row, f'{100 * weight[row, column]:.0f}', ha='center', va='center', fontsize=5,
                      color='black' if norm(weight[row, column]) > 0.6 else 'white')
    return image


def _curves(axis, figures: dict[str, list], students: int) -> None:
    """The figures of one pair over iterations, or over checkpoints that have names; distinct rows as a share of M2."""
    styles = zip(FIGURES, COLOURS, ('-', '--', ':', '-.', (0, (5, 1, 1, 1, 1, 1))))
    for name, colour, style in styles:
        if name in figures:
            label, whole = (f'distinct rows / {students}', students) if name == 'distinct' else (name, 1)
            values = np.array(figures[name], dtype=float) / whole
            axis.plot(figures['iter'], values, linestyle=style, color=colour, label=label, linewidth=1.4)
    axis.set_ylim(-0.02, 1.05)
    axis.set_xlabel('checkpoint' if isinstance(figures['iter'][0], str) else 'iteration', fontsize=8)
    axis.tick_params(labelsize=6)
    axis.legend(fontsize=6, loc='best')
    axis.grid(alpha=0.3)
