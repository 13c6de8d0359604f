"""Curves of several runs in one figure a number, what they mean, and in which order they are read."""
import re

from ..routing import FIGURES, relation_name
from .figures import Figure, content, escape, go, slug, thin
from .runs import Run

MAX_POINTS = 2000  # of a curve: more than a screen has columns
COLOURS = 8  # --run-0 to --run-7 of style.css; further runs begin anew, with other dashes
DASHES = ('solid', 'dash', 'dot', 'dashdot')
HEAD_KEY = re.compile(rf'head_({"|".join(FIGURES)})_(\w+)')
#: key of the log, or how it begins -> what it means
MEANING = (
    ('loss_rec', 'Squared error of the pixels that each view did not see.'),
    ('loss_', 'Distance of the relations of student heads from those of the teacher heads they are given.'),
    ('loss', 'What is minimised: the sum of the parts.'),
    ('base_lr', 'Learning rate before the factors of parameter groups.'),
    ('lr', 'The step size that the schedule gives.'),
    ('head_entropy', '1: every student head takes all teacher heads alike; 0: one teacher head each.'),
    ('head_coverage', 'Share of teacher heads with at least half of an even share; below 1 some teach next to nobody.'),
    ('head_spread', 'How far student heads differ in whom they learn from; 0: all learn from the same.'),
    ('head_distinct', 'Rows of W that differ from one another by more than 0.05; the other student heads learn what '
                      'another learns.'),
    ('head_blur', 'Share of the relation loss that no student can remove, since a head is asked for a mixture of '
                  'teacher heads; 0: none of it.'),
    ('knn/', 'Top-1 accuracy in percent of weighted k-NN on frozen features.'),
    ('grad_norm', 'Length of the gradient before clipping.'),
    ('time', 'Seconds an iteration.'),
    ('data_time', 'Seconds of an iteration spent waiting for images.'),
)


def curve_figure(runs: list[Run], key: str) -> Figure:
    """One number through training, of every run that has it."""
    figure, summary = go.Figure(), []
    axis = next(run.curves[key].axis for run in runs if key in run.curves)
    for number, run in enumerate(runs):
        if key in run.curves and run.curves[key].axis == axis:
            points = thin(sorted(run.curves[key].points.items()), MAX_POINTS)
            add_line(figure, points, number, run.name, axis)
            summary.append(summarise(run.name, points))
    figure.update_layout(**layout(axis))
    if key.startswith(('head_entropy', 'head_coverage', 'head_blur')):
        figure.update_yaxes(range=[-0.04, 1.04])
    return Figure(f'curve-{slug(key)}', title_of(key), describe(title_of(key), axis, summary), meaning_of(key),
                  content(figure), summary)


def knn_figure(runs: list[Run], key: str) -> Figure:
    """k-NN accuracy, with the untrained student's and the teacher's as lines to compare with.

    The untrained student's is also the curve's first point, at epoch 0. A level that is the same for all runs is
    labelled; else each run's has its colour.
    """
    figure, summary, levels = go.Figure(), [], {}
    end = max([1, *(step for run in runs for step in (run.curves[key].points if key in run.curves else ()))])
    for number, run in enumerate(runs):
        if key in run.curves:
            untrained = run.last('knn/untrained')
            points = {**({} if untrained is None else {0: untrained}), **run.curves[key].points}
            points = thin(sorted(points.items()), MAX_POINTS)
            add_line(figure, points, number, run.name, 'epoch', markers=True)
            summary.append(summarise(run.name, points))
        for level in ('untrained', 'teacher'):
            if run.last(f'knn/{level}') is not None:
                levels.setdefault((level, round(run.last(f'knn/{level}'), 2)), []).append(number)
    for (level, value), owners in levels.items():
        shared = sum(name == level for name, _ in levels) == 1  # the same for every run that has it
        figure.add_scatter(x=[0, end], y=[value, value], mode='lines', name=level, hoverinfo='name+y',
                           line=dict(dash='dot', width=1.5), meta=dict(run=None if shared else owners[0]))
        if shared:
            figure.add_annotation(x=1, xref='paper', xanchor='right', y=value, yanchor='bottom', showarrow=False,
                                  text=f'{level} {value:g}')
    figure.update_layout(**layout('epoch'))
    text = describe(title_of(key), 'epoch', summary) + ''.join(
        f' {level.capitalize()} of {", ".join(runs[number].name for number in owners)}: {value:g}.'
        for (level, value), owners in levels.items())
    return Figure(f'curve-{slug(key)}', title_of(key), text, meaning_of(key), content(figure), summary)


def add_line(figure, points: list, number: int, name: str, axis: str, markers: bool = False) -> None:
    """A run's line; dashes tell runs apart where colours do not."""
    figure.add_scatter(
        x=[step for step, _ in points], y=[value for _, value in points], name=escape(name),
        mode='lines+markers' if markers or len(points) < 3 else 'lines',
        line=dict(width=2, dash=DASHES[dash_of(number)]), meta=dict(run=number),
        hovertemplate=f'%{{y:.5g}} at {axis} %{{x}}<extra>%{{fullData.name}}</extra>')


def dash_of(number: int) -> int:
    """Which of :data:`DASHES` a run has: another than the run before, and than the run of the same colour."""
    return (number + number // COLOURS) % len(DASHES)


def layout(axis: str) -> dict:
    """What all curves have in common; the runs' colours are explained once, above."""
    return dict(showlegend=False, height=260, margin=dict(l=52, r=12, t=8, b=40), hovermode='closest',
                xaxis=dict(title=dict(text=axis), rangemode='tozero'), yaxis=dict(automargin=True, tickformat='~g'))


def summarise(name: str, points: list[tuple[int, float | None]]) -> tuple:
    """Name, number of points, and (step, value) of the first, last, lowest and highest finite one, None without any."""
    finite = [point for point in points if point[1] is not None]
    if not finite:
        return (name, len(points), (None, ) * 4)
    lowest, highest = min(finite, key=lambda point: point[1]), max(finite, key=lambda point: point[1])
    return (name, len(points), (finite[0], finite[-1], lowest, highest))


def describe(title: str, axis: str, summary: list[tuple]) -> str:
    """A figure of curves in words."""
    parts = [f'{name}: no finite value' if first is None else
             f'{name}: from {first[1]:.4g} at {axis} {first[0]} to {last[1]:.4g} at {axis} {last[0]}'
             for name, _, (first, last, _, _) in summary]
    return f'{title} by {axis}. ' + '; '.join(parts) + '.'


def title_of(key: str) -> str:
    """A key of the log as a heading."""
    match = HEAD_KEY.fullmatch(key)
    if match:
        return f'Head {match[1]}, {relation_name(match[2])}'
    if key.startswith('knn/'):
        student = key[len('knn/'):]
        return 'k-NN accuracy' + ('' if student == 'student' else f', {student}')
    return {'lr': 'Learning rate', 'base_lr': 'Base learning rate'}.get(key, key)


def meaning_of(key: str) -> str:
    """How to read a figure, '' where there is nothing to say."""
    return next((meaning for start, meaning in MEANING if key == start or (
        key.startswith(start) and start not in ('loss', 'lr', 'time'))), '')


def group_keys(runs: list[Run]) -> dict[str, list[str]]:
    """Heading -> keys of its curves, in order; headings without any are left out."""
    curves = {key: curve for run in reversed(runs) for key, curve in run.curves.items()}
    if all('lr' in run.curves and run.curves['lr'].points == run.curves['base_lr'].points
           for run in runs if 'base_lr' in run.curves):
        curves.pop('base_lr', None)
    groups: dict[str, list[str]] = {title: [] for title in ('Learning', 'Head sharing', 'Validation',
                                                            'Gradients and speed')}
    for key in sorted(set(curves) - {'knn/untrained', 'knn/teacher'}, key=reading_order):
        title = 'Validation' if curves[key].group == 'validation' else 'Head sharing' if key.startswith('head_') else \
            'Learning' if curves[key].group == 'knn' or 'loss' in key or key in ('lr', 'base_lr') else \
            'Gradients and speed'
        groups[title].append(key)
    return {title: keys for title, keys in groups.items() if keys}


def reading_order(key: str) -> tuple:
    """Sorts keys: k-NN, the whole loss and its parts, learning rates; figures of head sharing pair by pair."""
    head = HEAD_KEY.fullmatch(key)
    if head:
        return (0, head[2], FIGURES.index(head[1]))
    rank = next((rank for rank, fits in enumerate((
        key.startswith('knn/'), key == 'loss', 'loss' in key, key in ('lr', 'base_lr'))) if fits), 4)
    return (rank, key)
