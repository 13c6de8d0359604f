"""Write down what was measured: tables, JSON and plots."""
import json
import re
from pathlib import Path
from typing import Dict, List, Optional, Sequence

import torch

from ..engine.commands import write_atomically
from ..errors import UserInputError
from ..project import cpu_model, environment


def about(command: str, device: torch.device, **settings) -> dict:
    """What figures were computed with: command, device, versions, commit and settings."""
    found = environment()
    if device.type == 'cpu':
        found['device'] = f'{cpu_model()}, {torch.get_num_threads()} thread(s)'
    return dict(command=command, **found, **settings)


def markdown(rows: Sequence[Dict[str, object]]) -> str:
    """Rows of equal keys as a table: text to the left, numbers to the right with three digits that count, None as a
    dash."""
    def cell(value) -> str:
        if value is None:
            return '–'
        if isinstance(value, float):
            return f'{value:.3g}' if abs(value) < 1000 else f'{value:.0f}'
        return str(value)

    keys = list(rows[0])
    sides = [' --- ' if isinstance(rows[0][key], str) else ' ---: ' for key in keys]
    lines = [keys, None, *([cell(row[key]) for key in keys] for row in rows)]
    return '\n'.join('|' + '|'.join(sides) + '|' if line is None else '| ' + ' | '.join(line) + ' |' for line in lines)


def legend(facts: Dict[str, object], notes: Sequence[str]) -> str:
    """Facts and notes as a list below a table."""
    return '\n'.join([*(f'- {key}: {value}' for key, value in facts.items()), *(f'- {note}' for note in notes)])


def check_target(path: Optional[str], suffix: str) -> None:
    """See before long work that a file can be written.

    Raises:
        UserInputError: If it is there already, has another ending or its folder is missing.
    """
    if path is None:
        return
    if Path(path).suffix != suffix:
        raise UserInputError(f'{path!r} was given for a {suffix} file; let its name end in {suffix}.')
    if Path(path).exists():
        raise UserInputError(f'{path!r} is there already; give another name or remove it.')
    if not Path(path).resolve().parent.is_dir():
        raise UserInputError(f'No folder {str(Path(path).parent)!r} to write {Path(path).name!r} into; make it first.')


def publish(table: Sequence[Dict[str, object]], facts: Dict[str, object], notes: Sequence[str],
            path: Optional[str] = None, **figures) -> None:
    """Print a table with its legend, and keep both in a JSON file together with all figures.

    The file's ``table`` is a list of the lines that were printed, ``about`` and ``notes`` are what the legend is made
    of: ``tools/benchmarks/performance.py write`` makes pages of these three.

    Args:
        table (Sequence[dict]): Rows, of :func:`markdown`.
        facts (dict): Of :func:`about`.
        notes (Sequence[str]): Sentences for the legend.
        path (str, optional): The file. Defaults to None, no file.
        **figures: What else is kept.
    """
    text = markdown(table)
    print(f'{text}\n\n{legend(facts, notes)}')
    if path is not None:
        write_json(path, dict(table=text.splitlines(), about=facts, notes=list(notes), **figures))


def write_json(path: str, content: dict) -> None:
    """Write ``content`` with six significant digits; short lists and dicts are a line each."""
    text = json.dumps(rounded(content), indent=1)
    text = re.sub(r'[\[{][^\[\]{}]*[\]}]', in_a_line, text)
    write_atomically(Path(path), text + '\n')


def in_a_line(found: re.Match) -> str:
    """A list or dict of JSON without its line breaks, unless that is a long line."""
    joined = re.sub(r'\n *', ' ', found[0])
    return joined if len(joined) <= 200 else found[0]


def rounded(content):
    """The same with every float, in lists and dicts too, rounded to six significant digits."""
    if isinstance(content, float):
        return float(f'{content:.6g}')
    if isinstance(content, dict):
        return {key: rounded(value) for key, value in content.items()}
    return [rounded(value) for value in content] if isinstance(content, (list, tuple)) else content


def plot_growth(path: str, curves: Dict[str, List[tuple]], axis: str) -> None:
    """Draw how the time of a step grows.

    Args:
        path (str): PNG file to write.
        curves (dict): By name a list of (value, lower quartile, median, upper quartile), times in seconds.
        axis (str): What the values are.
    """
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot as plt
    figure, axes = plt.subplots(figsize=(6, 4))
    for name, points in curves.items():
        values, low, median, high = zip(*points)
        line, = axes.plot(values, median, marker='o', label=name)
        axes.fill_between(values, low, high, alpha=0.2, color=line.get_color(), linewidth=0)
    axes.set(xscale='log', yscale='log', xlabel=axis, ylabel='seconds a step')
    ticks = sorted({point[0] for points in curves.values() for point in points})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)
