"""Write one self-contained HTML file about work dirs."""
import base64
import hashlib
import io
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from ...errors import UserInputError
from ...project import commit
from ...version import __version__
from .config_diff import LEFT_OUT, differences, model_type, shipped_config
from .curve_figures import COLOURS, curve_figure, dash_of, group_keys, knn_figure
from .figures import Figure, check_installed, plotly_source, thin, to_json
from .inputs import check_names, check_target, name_folders, resolve
from .routing_figures import routings
from .runs import Run, read_run
from .tables import ReportTable, read_tables

HERE = Path(__file__).parent
QUALITY = 90  # of WebP: letters stay sharp; our choice
ALTERNATIVES = dict(
    head_routing='Heat map, one a relation: rows are student heads, columns teacher heads, colour is the share of the '
                 'teacher head in what the student head learns; a row sums to 1.',
    reconstruction="Per row one image: input, view 1, view 2 (hidden patches grey), merged prediction, the teacher's "
                   'own reconstruction of the hidden patches, absolute error of the merged prediction.',
    attention='Per row one image: where the [class] token of each student head looks in the tapped block; brighter is '
              'more attention, each map scaled to its own largest value.')
#: of pictures that a tool drew afterwards
TOOL_ALTERNATIVES = dict(
    ALTERNATIVES, attention='Per row one image and network: where the [class] token of each head looks; brighter is '
                            'more attention, each map scaled to its own largest value.')


def write_report(work_dirs: Sequence[str], out: str, names: Sequence[str] | None = None,
                 tables: Sequence[str] = (), max_pictures: int = 6, overwrite: bool = False) -> tuple[int, int]:
    """Read work dirs and write the page.

    Args:
        work_dirs (sequence[str]): Of runs; or of ``lab/tables/run_table.py``, for its runs and tables.
        out (str): The HTML file.
        names (sequence[str], optional): One a run, in order. None takes what tells the folders apart.
        tables (sequence[str]): Further JSON files of downstream numbers, or folders with some.
        max_pictures (int): Of each kind and run, evenly spaced over training. Defaults to 6 (our choice).
        overwrite (bool): Replace ``out`` where it exists. Defaults to False.

    Returns:
        tuple: Number of runs and bytes of the file.

    Raises:
        UserInputError: If a folder holds no run, or the file is there or cannot be written.
    """
    check_installed()
    target = Path(out)
    check_target(target, overwrite)
    if max_pictures < 1:
        raise UserInputError(f'--max-pictures is 1 or more, not {max_pictures}.')
    folders, found = resolve(work_dirs)
    names = check_names(names, folders) if names else name_folders(folders)
    for path in tables:
        found += read_tables(Path(path))
    found = list({table.source: table for table in found}.values())
    runs = [read_run(folder, name) for folder, name in zip(folders, names)]
    text = render(runs, found, max_pictures)
    return len(runs), write_text(target, text)


def render(runs: list[Run], tables: list[ReportTable], max_pictures: int) -> str:
    """The page."""
    groups = {title: [figure_of(runs, key) for key in keys] for title, keys in group_keys(runs).items()}
    routing = routings(runs)
    figures = [figure for group in groups.values() for figure in group]
    figures += [figure for item in routing for figure in (item.map, item.history)]
    data = dict(
        figures={figure.id: figure.content for figure in figures},
        iterations=sorted({iteration for item in routing for iteration, _ in item.readings}),
        routing=[dict(map=item.map.id, history=item.history.id,
                      readings=[dict(iteration=iteration, weights=weights) for iteration, weights in item.readings])
                 for item in routing])
    plotly, script = plotly_source(), (HERE / 'report.js').read_text(encoding='utf-8')
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    return environment.get_template('page.html').render(
        title='MIM-HD report: ' + (runs[0].name if len(runs) == 1 else f'{len(runs)} runs'), runs=runs,
        cards=[card(run, number) for number, run in enumerate(runs)], groups=groups, routing=routing,
        iterations=data['iterations'],
        # head weights as pictures only where there are no numbers to draw them from
        pictures={kind: [entry for number, run in enumerate(runs) if kind != 'head_routing' or not run.weights
                         for entry in read_pictures(run, number, kind, max_pictures)] for kind in ALTERNATIVES},
        unrouted=[run.name for run in runs if not run.weights and not any(
            kind == 'head_routing' for kind, _ in run.pictures)],
        tables=tables, settings=compare(runs), environment=environment_rows(runs), commit=commit(),
        version=__version__, made=datetime.now().strftime('%Y-%m-%d %H:%M'), colours=COLOURS,
        dashes=[dash_of(number) for number in range(len(runs))],
        style=Markup((HERE / 'style.css').read_text(encoding='utf-8')), plotly=Markup(plotly), script=Markup(script),
        hashes=[sha256(plotly), sha256(script)], data=Markup(to_json(data)))


def figure_of(runs: list[Run], key: str) -> Figure:
    """The figure of a key of the log."""
    return knn_figure(runs, key) if key.startswith('knn/') else curve_figure(runs, key)


def card(run: Run, number: int) -> dict[str, Any]:
    """A run at a glance."""
    config = run.config or {}
    lengths = config.get('train_cfg') or {}
    asked = next((f'{key}\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{lengths[key]}' for key in ('max_epochs', 'max_iters')
                  if lengths.get(key)), '')
    done = max([0, *(step for curve in run.curves.values() for step in curve.points
                     if curve.axis == 'iteration')])
    levels = {name: run.last(f'knn/{name}') for name in ('untrained', 'student', 'teacher')}
    way = None
    if None not in levels.values() and levels['teacher'] != levels['untrained']:
        way = (levels['student'] - levels['untrained']) / (levels['teacher'] - levels['untrained'])
    words = '' if way is None else 'below untrained' if way < 0 else 'above the teacher' if way > 1 else \
        f'{100 * way:.0f} % of the way from untrained to teacher'
    stems = sorted(file.stem for file in run.folder.glob('*.py') if file.stem != 'config')  # run_table calls all so
    return dict(number=number, name=run.name, folder=str(run.folder), model=model_type(config) if config else 'unknown',
                config=', '.join(stems), iterations=done, asked=asked,
                loss=run.last('loss'), hours=run.hours, levels=levels, way=way, words=words, starts=len(run.starts),
                replaced=run.replaced, started=run.starts[0].name)


def read_pictures(run: Run, number: int, kind: str, most: int) -> list[dict[str, Any]]:
    """The pictures of a kind, one entry a student, as data URIs by iteration; a file that does not decode is named."""
    entries = []
    for (found, student), files in sorted(run.pictures.items()):
        if found != kind:
            continue
        kept, damaged = [], []
        for iteration, file in thin(list(files.items()), most):
            try:
                alt = (TOOL_ALTERNATIVES if iteration is None else ALTERNATIVES)[kind]
                kept.append(dict(read_picture(file), iteration=iteration, alt=alt))
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # a damaged chunk: SyntaxError
                damaged.append(file.name)
        entries.append(dict(id=f'{kind}-{number}-{len(entries)}', run=number, name=run.name, student=student,
                            pictures=kept, damaged=damaged, left_out=max(0, len(files) - most)))
    return entries


def read_picture(file: Path) -> dict[str, Any]:
    """A PNG file for the page, as WebP, which is several times smaller.

    Raises:
        OSError: If it does not decode.
    """
    buffer = io.BytesIO()
    with Image.open(file, formats=['PNG']) as image:
        image.convert('RGB').save(buffer, 'WEBP', quality=QUALITY)
        width, height = image.size
    return dict(uri='data:image/webp;base64,' + base64.b64encode(buffer.getvalue()).decode(), width=width,
                height=height, file=file.name)


def compare(runs: list[Run]) -> dict[str, Any]:
    """Differences of the runs' configs, or of the only run's config to the nearest that comes with this project."""
    unreadable = [run.name for run in runs if run.config is None]
    readable = [run for run in runs if run.config is not None]
    result = dict(unreadable=unreadable, left_out=LEFT_OUT, columns=[], rows=[], against=None)
    if len(readable) > 1:
        result.update(columns=[run.name for run in readable], rows=differences([run.config for run in readable]))
    elif len(runs) == 1 and readable:
        base = shipped_config(readable[0])
        if base is not None:
            path, config, why = base
            result.update(columns=[path, readable[0].name], against=f'{path}, {why}',
                          rows=differences([config, readable[0].config]))
    return result


def environment_rows(runs: list[Run]) -> list[tuple[str, list[str]]]:
    """Key -> one value a run, in the order of the logs; the commit first."""
    keys = list(dict.fromkeys(['commit', *(key for run in runs for key in run.environment)]))
    return [(key, [run.environment.get(key, 'not recorded') for run in runs]) for key in keys]


def sha256(script: str) -> str:
    """Of a script, as a content security policy names it."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def write_text(target: Path, text: str) -> int:
    """Write a file atomically; return its size in bytes.

    Raises:
        UserInputError: If it cannot be written.
    """
    content = text.encode()
    temporary = target.with_name(f'{target.name}.{os.getpid()}.tmp')
    try:
        temporary.write_bytes(content)
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserInputError(f'{str(target)!r} cannot be written ({error.strerror}); name another file with -o.'
                             ) from error
    return len(content)
