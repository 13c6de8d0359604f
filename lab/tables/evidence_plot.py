"""The scores of the evidence page as pictures: by row, and against how sharp the head weights are."""
from pathlib import Path
from typing import Dict, List, Tuple, Union

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mimhd_mm.evaluation.tasks import COLUMNS

from .evidence_page import score_of


def draw_scores(results: Dict[str, dict], path: Union[str, Path]) -> None:
    """Draw every seed's score as a dot, and mean and sample standard deviation over the seeds as a bar.

    Args:
        results (dict): Table -> what :func:`~lab.tables.evidence_page.keep` wrote.
        path (str | Path): Where the PNG goes.
    """
    panels: List[Tuple[dict, str]] = [
        (result, task) for result in results.values() for task in COLUMNS
        if any(score_of(row, task) for row in result['rows'])]
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(5.2 * columns, 2.6 * lines), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis, (result, task) in zip(axes, panels):
        rows = [row for row in result['rows'] if score_of(row, task)]
        for place, row in enumerate(rows):
            scores = [run['scores'][task] for run in row['runs'] if task in run['scores']]
            found = score_of(row, task)
            axis.plot(scores, [place] * len(scores), 'o', color='#0072B2', alpha=0.5, markersize=4)
            axis.errorbar(found['mean'], place, xerr=found['std'], fmt='|', color='black', capsize=3, markersize=12)
        axis.set_yticks(range(len(rows)), [row['name'] for row in rows], fontsize=8)
        axis.invert_yaxis()
        axis.set_xlabel(f'{COLUMNS[task]}, percent', fontsize=8)
        axis.tick_params(axis='x', labelsize=8)
        axis.set_title(result['title'].split(':')[0], fontsize=9)
        axis.grid(axis='x', alpha=0.3)
    for axis in axes[len(panels):]:
        axis.set_visible(False)
    figure.savefig(path, dpi=100)


#: tables whose rows differ in how head weights are learned
ABOUT_WEIGHTS = ('matching', 'remedies')


def entropy_points(result: dict) -> List[Tuple[float, float]]:
    """Mean row entropy of the pairs and k-NN of every run of a table that has both."""
    points = []
    for run in (run for row in result['rows'] for run in row['runs']):
        entropies = [run['logged'].get(f'head_entropy_{pair}') for pair in ('qk', 'vv')]
        if None not in entropies and 'knn' in run['scores']:
            points.append((sum(entropies) / 2, run['scores']['knn']))
    return points


def draw_entropy(results: Dict[str, dict], path: Union[str, Path]) -> None:
    """Draw k-NN against the mean row entropy of Q-K's and V-V's head weights at the end, one dot a run.

    Only of tables whose rows are about these weights: :data:`ABOUT_WEIGHTS`.

    Args:
        results (dict): As of :func:`draw_scores`.
        path (str | Path): Where the PNG goes.
    """
    figure = Figure(figsize=(7, 4), layout='constrained')
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for name, marker in zip(ABOUT_WEIGHTS, 'os'):
        points = entropy_points(results[name]) if name in results else []
        if points:
            axis.plot(*zip(*points), marker, alpha=0.7, label=results[name]['title'].split(':')[0])
    axis.set(xlabel='row entropy of the head weights / log M1: 0 one teacher head each, 1 the mean of all',
             ylabel='k-NN, percent')
    axis.grid(alpha=0.3)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=100)
