"""The page's tables of the second protocol, from the files of results alone."""
from pathlib import Path

from mimhd_mm.markdown import markdown_table

from ..pages import write_part
from .protocol import Protocol, ProtocolRow, ProtocolTable
from .runs import read_runs
from .statistics import Difference, mean_of, paired_difference

BEGIN = '<!-- begin: written by python -m lab.evidence write -->'
END = '<!-- end of what python -m lab.evidence write writes -->'
HEADING = '## Results, second protocol'
#: score -> heading
SCORES = {'knn': 'k-NN', 'knn_before': 'k-NN, before last', 'ridge': 'ridge', 'ridge_before': 'ridge, before last',
          'miou': 'linear mIoU', 'miou_before': 'linear mIoU, before last', 'read_out': 'read-out KL'}
LOWER_IS_BETTER = {'read_out'}
DIGITS = {'read_out': 4}
INTRODUCTION = (
    'Percent, but for the read-out KL (nats a query), where less is better; mean ± sample standard deviation over n '
    'seeds. "Before last" is the block before the last; of a teacher, the tapped block counts as the last. Minutes are '
    'those of one training on one thread, start and reading of images included and evaluation not, by the clock and of '
    'the processor (CPU). "Teacher\'s" are those of asking the teacher once, which rows of the same targets share. '
    'Differences are means over the seeds that both rows have, with a 95 % interval (t); where less is better the sign '
    'is turned round, so that more is better everywhere. *Better* and *worse*: the interval is without 0.')

Runs = dict[str, list[dict]]


def write_page(page: Path, docs: Path, protocol: Protocol) -> None:
    """Replace what is between the two markers.

    Raises:
        UserInputError: If the page or a marker is not there.
    """
    write_part(page, BEGIN, END, results_text(protocol, docs))


def results_text(protocol: Protocol, docs: Path) -> str:
    """Everything between the markers."""
    parts = [HEADING, INTRODUCTION]
    for table in protocol.tables.values():
        parts += table_text(table, read_runs(docs / f'{table.name}.json'))
    return '\n\n'.join(parts)


def table_text(table: ProtocolTable, runs: Runs) -> list[str]:
    """A table with its differences and what it was made with."""
    parts = [f'### {table.title}']
    if not any(runs.values()):
        return [*parts, 'Not run.']
    metrics = [metric for metric in SCORES if any(metric in run['scores'] for row in runs.values() for run in row)]
    parts.append(scores_table(table, runs, metrics))
    if differences := [(row, other) for row in table.rows for other in row.against]:
        parts.append(differences_table(differences, runs, metrics))
    parts += [blocks_table(row, runs[row.name][0]['blocks']) for row in table.rows
              if runs.get(row.name) and 'blocks' in runs[row.name][0]]
    return [*parts, *([table.note] if table.note else []), about_text(table, runs)]


def scores_table(table: ProtocolTable, runs: Runs, metrics: list[str]) -> str:
    """One line a row: scores, what else the table shows, and time."""
    costs = any(row.cost for row in table.rows)
    heading = ['row', *(['cost'] if costs else []), *(SCORES[metric] for metric in metrics), *table.logged.values(),
               'passes', 'minutes', 'CPU minutes', "teacher's, CPU minutes"]
    lines = []
    for row in table.rows:
        found = runs.get(row.name, [])
        lines.append([
            row.name, *([row.cost or '–'] if costs else []),
            *(mean_text([run['scores'][metric] for run in found if metric in run['scores']], DIGITS.get(metric, 2))
              for metric in metrics),
            *(mean_text([run['logged'][key] for run in found if key in run['logged']], with_n=False)
              for key in table.logged),
            f'{row.passes:,}' if row.kind == 'student' else '–',
            *(mean_text([run[key] / 60 for run in found if run['steps']], 1, with_n=False)
              for key in ('seconds', 'cpu_seconds', 'cache_cpu_seconds'))])
    return markdown_table(heading, lines, (1 + costs) * 'l' + (len(heading) - 1 - costs) * 'r')


def differences_table(pairs: list, runs: Runs, metrics: list[str]) -> str:
    """One line a pair of rows: paired differences and their readings."""
    lines = []
    for row, other in pairs:
        cells = []
        for metric in metrics:
            first, second = ({run['seed']: run['scores'][metric] for run in runs.get(name, [])
                              if metric in run['scores']} for name in (row.name, other))
            found = paired_difference(first, second, higher_is_better=metric not in LOWER_IS_BETTER)
            cells.append(difference_text(found, DIGITS.get(metric, 2)))
        lines.append([f'{row.name} – {other}', *cells])
    return markdown_table(['difference', *(SCORES[metric] for metric in metrics)], lines, 'l' + len(metrics) * 'r')


def blocks_table(row: ProtocolRow, blocks: dict[str, dict[str, float]]) -> str:
    """Scores of every block of a network."""
    metrics = [metric for metric in SCORES if metric in next(iter(blocks.values()))]
    lines = [[block, *(f'{scores[metric]:.2f}' for metric in metrics)] for block, scores in blocks.items()]
    return markdown_table([f'{row.name}: block', *(SCORES[metric] for metric in metrics)], lines,
                          'l' + len(metrics) * 'r')


def about_text(table: ProtocolTable, runs: Runs) -> str:
    """Command, device, versions and commits of a table."""
    made = [run for row in table.rows for run in runs.get(row.name, [])]
    device, versions, commits = ('; '.join(sorted({run[key] for run in made}))
                                 for key in ('device', 'versions', 'commit'))
    return f'`python -m lab.evidence run {table.name} ...`; {device}; {versions}; commit {commits}.'


def mean_text(values: list[float], digits: int = 2, with_n: bool = True) -> str:
    """A mean with its deviation and the number of seeds; a dash of nothing."""
    found = mean_of(values)
    if found is None:
        return '–'
    spread = '' if found.std is None or not with_n else f' ± {found.std:.{digits}f}'
    return f'{found.mean:.{digits}f}{spread}' + (f' (n={found.n})' if with_n else '')


def difference_text(found: Difference | None, digits: int = 2) -> str:
    """A difference with its interval and its reading; a dash where no seed is common."""
    if found is None:
        return '–'
    interval = '' if found.low is None else f' [{found.low:+.{digits}f}, {found.high:+.{digits}f}]'
    return f'{found.mean:+.{digits}f}{interval} {found.reading} (n={found.n})'
