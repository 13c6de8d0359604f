"""Tables and plots of what was measured."""
from collections.abc import Sequence

from mimhd_mm.markdown import markdown_table
from mimhd_mm.measuring.record import legend, write_json


def markdown(rows: Sequence[dict[str, object]]) -> str:
    """Rows of equal keys as a table: text to the left, numbers to the right with three digits that count, None as a
    dash."""
    def cell(value) -> str:
        if value is None:
            return '–'
        if isinstance(value, float):
            return f'{value:.3g}' if abs(value) < 1000 else f'{value:.0f}'
        return str(value)

    keys = list(rows[0])
    sides = ''.join('l' if isinstance(rows[0][key], str) else 'r' for key in keys)
    return markdown_table(keys, ([cell(row[key]) for key in keys] for row in rows), sides)


def publish(table: Sequence[dict[str, object]], facts: dict[str, object], notes: Sequence[str],
            path: str | None = None, **figures) -> None:
    """Print a table with its legend, and keep both in a JSON file together with all figures.

    The file's ``table`` is a list of the lines that were printed, ``about`` and ``notes`` are what the legend is made
    of: ``lab/speed/performance.py write`` makes pages of these three.

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


def plot_growth(path: str, curves: dict[str, list[tuple]], axis: str) -> None:
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
