"""The evidence page: run its tables, keep what their logs say as small files, write the results from these alone."""
import json
import re
from pathlib import Path
from typing import Dict, List, Optional, Sequence

import yaml

from mimhd_mm.engine.commands import logged
from mimhd_mm.errors import UserInputError
from mimhd_mm.evaluation.tasks import COLUMNS
from mimhd_mm.markdown import markdown_table
from mimhd_mm.weights.writing import write_whole

from ..pages import write_part
from .plan import TableOptions
from .report import summary
from .rows import PaperTable, read_tables
from .runs import run_table

BEGIN = '<!-- begin: written by python -m lab.tables.evidence write -->'
END = '<!-- end -->'
#: what is kept of the log of each epoch
CURVES = ('loss_qk', 'loss_vv', 'loss_rec', 'head_entropy_qk', 'head_entropy_vv', 'head_coverage_qk', 'head_coverage_vv')
#: figures of the head weights beside the scores, where a table has them: key of the log -> heading
WEIGHTS = {'head_entropy_qk': 'entropy Q-K', 'head_entropy_vv': 'entropy V-V', 'head_coverage_qk': 'coverage Q-K',
           'head_coverage_vv': 'coverage V-V'}


def protocol_file() -> Path:
    """The list of the tables."""
    return Path(__file__).with_name('evidence.yml')


def read_protocol() -> Dict[str, dict]:
    """Of every table of the page the number of ``seeds``, the ``tasks``, and ``weights``: whether it shows those."""
    content = yaml.safe_load(protocol_file().read_text())
    return {name: dict(seeds=table['seeds'], tasks=tuple(table['tasks']), weights=table.get('weights', False))
            for name, table in content.items()}


def run_evidence(names: Sequence[str], command: str, folder: Path, **where) -> Dict[str, str]:
    """Run tables of the page, or go on with them, and keep their results after each.

    Args:
        names (sequence[str]): Which, in this order.
        command (str): The command line, for the record.
        folder (Path): For the results.
        **where: ``pretrain_root``, ``segmentation_root``, ``teacher``, ``heads``, ``work_dir`` of
            :class:`TableOptions`.

    Returns:
        dict: What failed: table, row and seed -> a sentence.

    Raises:
        UserInputError: If anything does not fit, before the first run of a table.
    """
    tables, protocol, failures = read_tables(protocol_file()), read_protocol(), {}
    for name in check_names(names, protocol):
        heads = where['heads'] if any('SelectHeadMatcher' in str(row.sources) for row in tables[name].rows) else None
        settings = protocol[name]
        options = TableOptions(mini=True, seeds=settings['seeds'], tasks=settings['tasks'], shorten_tasks=TASK_LENGTH,
                               **{**where, 'heads': heads})
        failed = run_table(tables[name], None, options, command)
        failures.update({f'{name}, {run}': sentence for run, sentence in failed.items()})
        keep(tables[name], options, folder)
    return failures


#: of the evaluation's trainings: of CamVid, 250 iterations of UperNet and 400 of a linear layer
TASK_LENGTH = 0.25


def check_names(names: Sequence[str], protocol: Dict[str, dict]) -> List[str]:
    """``names``, or all where there are none.

    Raises:
        UserInputError: If one is no table of the page.
    """
    unknown = [name for name in names if name not in protocol]
    if unknown:
        raise UserInputError(f'The page has the tables {", ".join(protocol)}, not {unknown[0]!r}.')
    return list(names or protocol)


def keep(table: PaperTable, options: TableOptions, folder: Path) -> None:
    """Write ``<folder>/<table>.json``: scores of every seed, curves, hours and environment, without paths."""
    found = json.loads((Path(options.work_dir) / f'{table.name}-mini.json').read_text())
    rows = []
    for row in found['rows']:
        runs = [dict(id=run['folder'].split('-')[-1], seed=run['seed'], scores=run['scores'], logged=run['logged'],
                     hours=round(run['seconds'] / 3600, 4), resumed=run['resumed'],
                     curves=curves(Path(run['folder']) / 'pretrain'))
                for run in row['runs'] if run['scores']]
        rows.append(dict(name=row['name'], runs=runs))
    about = {key: value for key, value in found['about'].items() if key in ('settings', 'device', 'versions', 'commit')}
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / f'{table.name}.json',
                     compact(dict(table=table.name, title=table.title, about=about, rows=rows)) + '\n')


def curves(work_dir: Path) -> Dict[str, list]:
    """What was logged at the end of every epoch: ``epoch`` and the keys of :data:`CURVES`."""
    last = {entry['epoch']: entry for entry in logged(work_dir) if 'loss' in entry and 'epoch' in entry}
    keys = [key for key in CURVES if any(key in entry for entry in last.values())]
    return {'epoch': sorted(last), **{key: [round(last[epoch][key], 5) for epoch in sorted(last)] for key in keys}}


def compact(content) -> str:
    """JSON with one line for every innermost list."""
    text = json.dumps(content, indent=1)
    return re.sub(r'\[[^\[\]{}]*\]', lambda found: ' '.join(found[0].split()), text)


def read_results(folder: Path) -> Dict[str, dict]:
    """What :func:`keep` wrote, by table, in the protocol's order."""
    return {name: json.loads((folder / f'{name}.json').read_text()) for name in read_protocol()
            if (folder / f'{name}.json').is_file()}


def score_of(row: dict, task: str) -> Optional[dict]:
    """Mean, standard deviation and number of a task over the seeds of a row; None where it was not run."""
    return summary([run['scores'][task] for run in row['runs'] if task in run['scores']])


def weight_of(row: dict, key: str) -> Optional[dict]:
    """The same of a figure of the head weights at the end of training."""
    return summary([run['logged'][key] for run in row['runs'] if key in run['logged']])


def compare(first: Optional[dict], second: Optional[dict]) -> str:
    """The protocol's reading of two scores: ``'better'``, ``'equal within s'``, ``'worse'``, or why there is none."""
    if not first or not second or min(first['n'], second['n']) < 2:
        return 'undecided (fewer than two seeds)'
    spread, difference = max(first['std'], second['std']), first['mean'] - second['mean']
    return 'better' if difference > spread else 'worse' if difference < -spread else 'equal within s'


def text_of(found: Optional[dict], digits: int = 2) -> str:
    """A number with its deviation and its seeds."""
    if not found:
        return 'not run'
    std = '' if found['std'] is None else f' ± {found["std"]:.{digits}f}'
    return f'{found["mean"]:.{digits}f}{std} (n={found["n"]})'


def table_text(result: Optional[dict], name: str, settings: dict) -> str:
    """A table of the page, as Markdown."""
    if result is None:
        return f'### {read_tables(protocol_file())[name].title}\n\nNot run.'
    tasks = [task for task in COLUMNS if any(score_of(row, task) for row in result['rows'])]
    weights = [key for key in WEIGHTS if settings['weights'] and any(weight_of(row, key) for row in result['rows'])]
    lines = []
    for row in result['rows']:
        hours = summary([run['hours'] for run in row['runs'] if not run['resumed']])
        lines.append([row['name'], *(text_of(score_of(row, task)) for task in tasks),
                      *('–' if weight_of(row, key) is None else f'{weight_of(row, key)["mean"]:.2f}' for key in weights),
                      f'{hours["mean"]:.3f}' if hours else 'resumed' if row['runs'] else 'not run'])
    heading = ['row', *(COLUMNS[task] for task in tasks), *(WEIGHTS[key] for key in weights), 'hours a seed']
    table = markdown_table(heading, lines, 'l' + 'r' * (len(heading) - 1))
    about = result['about']
    return (f'### {result["title"]}\n\n{table}\n\n`python -m lab.tables.evidence run {name} ...`; {about["device"]}; '
            f'{about["versions"]}; commit {about["commit"]}.')


def verdicts(results: Dict[str, dict]) -> str:
    """The protocol's readings of the main table, one line a pair, one column a metric."""
    if 'claims' not in results:
        return 'The main table has not been run.'
    rows = {row['name']: row for row in results['claims']['rows']}
    tasks = [task for task in read_protocol()['claims']['tasks'] if any(score_of(row, task) for row in rows.values())]
    heading = ['MIM-HD at E, against', *(
        COLUMNS[task] + (' (decides nothing)' if task == 'linear_segmentation' else '') for task in tasks)]
    lines = [[other, *(compare(score_of(rows['MIM-HD, E'], task), score_of(rows[other], task)) for task in tasks)]
             for other in rows if other != 'MIM-HD, E']
    return ('How the scores of the first table read, by the protocol:\n\n'
            + markdown_table(heading, lines, 'l' * len(heading)))


def write_page(page: Path, folder: Path) -> None:
    """Replace what is between the two markers of the page by tables, readings and the plot.

    Raises:
        UserInputError: If the page or a marker is not there, or nothing has been kept.
    """
    results, protocol = read_results(folder), read_protocol()
    if not results:
        raise UserInputError(f'No results in {str(folder)!r}; `python -m lab.tables.evidence run` leaves them there.')
    parts = [
        '### Results', 'Percent; mean ± sample standard deviation over n seeds.\nHours are those of pre-training and '
        f'evaluation together, of runs that were not interrupted; all runs: {distinct_hours(results):.1f}.',
        verdicts(results), f'![Scores of every row, with the spread of its seeds]({folder.name}/scores.png)',
        f'![k-NN of the tables of head weights against their entropy]({folder.name}/entropy.png)']
    parts += [table_text(results.get(name), name, settings) for name, settings in protocol.items()]
    write_part(page, BEGIN, END, '\n\n'.join(parts))


def distinct_hours(results: Dict[str, dict]) -> float:
    """Hours of all runs; one that several tables share counts once, with what most of its evaluations took."""
    runs = {}
    for run in (run for result in results.values() for row in result['rows'] for run in row['runs']):
        runs[run['id']] = max(run['hours'], runs.get(run['id'], 0))
    return sum(runs.values())
