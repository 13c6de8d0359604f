"""Heat maps of the head weights, at one time and over training."""
import math
from dataclasses import dataclass

from ..routing import FIGURES, relation_name
from .figures import Figure, content, go, slug, thin
from .runs import Run

MAX_READINGS = 200  # of head weights: positions of the slider


@dataclass
class Routing:
    """Head weights of one run and pair through training.

    Attributes:
        run (int): Number of the run.
        title (str): Pair and student.
        map (Figure): The heat map of the last reading; the slider gives it others.
        history (Figure): All readings side by side.
        readings (list[tuple]): (iteration, W), W rows of student heads.
        left_out (int): Readings between those, which the page does not hold.
        figures (dict): Name -> its value at each reading, None where a reading lacks it; only those of
            :data:`~mimhd_mm.visualization.routing.FIGURES` that some reading has.
    """
    run: int
    title: str
    map: Figure
    history: Figure
    readings: list[tuple[int, list[list[float]]]]
    left_out: int
    figures: dict[str, list[float | None]]


def routings(runs: list[Run]) -> list[Routing]:
    """Heat maps of every run, pair and student that has readings, at one time and through time.

    With balanced weights the sums over student heads are equal by construction, so only single weights show changes.
    """
    series: dict[tuple, list[dict]] = {}
    for number, run in enumerate(runs):
        for reading in run.weights:
            series.setdefault((number, reading['pair'], reading.get('student', '')), []).append(reading)
    top = max((weight for readings in series.values() for reading in readings
               for row in reading['W'] for weight in row if weight is not None), default=1.)
    found = []
    for (number, pair, student), readings in sorted(series.items()):
        kept = thin(readings, MAX_READINGS)
        title = f'{relation_name(pair)} relations' + (f', student {student}' if student else '')
        name = f'{number}-{slug(pair)}' + (f'-{slug(student)}' if student else '')
        found.append(Routing(number, title, weight_map(name, runs[number], title, kept[-1], top),
                             history_map(name, runs[number], title, kept, top),
                             [(reading['iter'], reading['W']) for reading in kept], len(readings) - len(kept),
                             figures_of(kept)))
    return found


def figures_of(readings: list[dict]) -> dict[str, list[float | None]]:
    """What the readings say of W in a number each, by name; None where it is missing or not finite."""
    return {name: [value if isinstance(value := reading.get(name), (int, float)) and math.isfinite(value) else None
                   for reading in readings]
            for name in FIGURES if any(name in reading for reading in readings)}


def weight_map(name: str, run: Run, title: str, reading: dict, top: float) -> Figure:
    """W of one reading; all maps of a page share the colour scale, from 0 to ``top``."""
    weights = reading['W']
    students, teachers = len(weights), len(weights[0])
    figure = go.Figure(go.Heatmap(
        z=weights, x=list(range(1, teachers + 1)), y=list(range(1, students + 1)), zmin=0, zmax=top, xgap=1, ygap=1,
        texttemplate='%{z:.2f}' if teachers <= 16 else None, textfont=dict(size=10),
        hovertemplate='student head %{y} learns %{z:.3f} from teacher head %{x}<extra></extra>',
        colorbar=dict(thickness=10, title=dict(text='share', side='right')), meta=dict(scale='sequential')))
    figure.update_layout(margin=dict(l=44, r=8, t=8, b=40), height=height_of(students, teachers))
    figure.update_xaxes(title=dict(text='teacher head'), dtick=1, showgrid=False)
    figure.update_yaxes(title=dict(text='student head'), dtick=1, showgrid=False, autorange='reversed')
    text = (f'Heat map of {title}, run {run.name}: rows are {students} student heads, columns {teachers} teacher '
            f'heads, colour is the share of the teacher head in what the student head learns. A row sums to 1; an even '
            f'share is {1 / teachers:.3f}.')
    return Figure(f'weights-{name}', title, text, '', content(figure))


def history_map(name: str, run: Run, title: str, readings: list[dict], top: float) -> Figure:
    """All of W, one line a pair of a student head and a teacher head, iterations to the right; see :func:`routings`."""
    students, teachers = len(readings[0]['W']), len(readings[0]['W'][0])
    iterations = [reading['iter'] for reading in readings]
    names, shares, middles = [], [], []
    for student in range(students):
        if student:
            names.append(f'above student head {student + 1}')  # a gap
            shares.append([None] * len(readings))
        middles.append(f'student head {student + 1}, teacher head {teachers // 2 + 1}')
        for teacher in range(teachers):
            names.append(f'student head {student + 1}, teacher head {teacher + 1}')
            shares.append([reading['W'][student][teacher] for reading in readings])
    figure = go.Figure(go.Heatmap(
        z=shares, x=iterations, y=names, zmin=0, zmax=top, showscale=False, hoverongaps=False,
        hovertemplate='%{y} at iteration %{x}: %{z:.3f}<extra></extra>', meta=dict(scale='sequential')))
    figure.update_layout(margin=dict(l=44, r=8, t=8, b=40), height=height_of(students, teachers),
                         shapes=[dict(type='line', x0=iterations[-1], x1=iterations[-1], y0=0, y1=1, yref='paper',
                                      line=dict(width=2))])
    figure.update_xaxes(title=dict(text='iteration'), showgrid=False)
    figure.update_yaxes(title=dict(text='student head'), type='category', tickmode='array', tickvals=middles,
                        ticktext=list(range(1, students + 1)), showgrid=False, autorange='reversed')
    first, last = readings[0]['W'], readings[-1]['W']
    changed = sum(strongest(before) != strongest(after) for before, after in zip(first, last))
    text = (f'The same shares at every reading from iteration {iterations[0]} to {iterations[-1]}; {title}, run '
            f'{run.name}: a band for each student head, in it a line for each teacher head. The teacher head with the '
            f'largest share changed for {changed} of {students} student heads.')
    return Figure(f'history-{name}', title, text, '', content(figure))


def strongest(row: list) -> int | None:
    """The teacher head with the largest share, None where that is not finite."""
    return None if None in row else row.index(max(row))


def height_of(students: int, teachers: int) -> int:
    """Pixels of a heat map and of the history beside it, with at least two a line of that."""
    return max(240, 34 * students + 70, 2 * students * teachers + 80)
