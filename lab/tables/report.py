"""A table of the paper with this project's own numbers: collected from the runs, as Markdown, CSV and JSON."""
import csv
import io
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from mimhd_mm.errors import UserInputError
from mimhd_mm.evaluation.tasks import COLUMNS, PAPER
from mimhd_mm.markdown import markdown_table
from mimhd_mm.weights.writing import write_whole

from .evaluation import evaluation_folder
from .plan import SeedRun, TableOptions
from .rows import PaperRow, PaperTable, options_text

Failures = dict[tuple[int, int], str]


def write_report(table: PaperTable, plans: dict[int, list[SeedRun]], failures: Failures, options: TableOptions,
                 command: str) -> None:
    """Write the table into the work dir, in its three forms, from what is there now.

    Args:
        table (PaperTable): Which.
        plans (dict): Row number -> its runs.
        failures (dict): Row number and seed -> what went wrong in this call.
        options (TableOptions): What was asked for.
        command (str): The command line.
    """
    rows = [collect(row, plans[row.number], failures, options) for row in table.rows]
    about = describe(rows, options, command)
    stem = report_stem(table, options)
    write_whole(stem.with_suffix('.md'), markdown(table, rows, about, options))
    write_whole(stem.with_suffix('.csv'), csv_text(rows, options))
    content = dict(table=table.name, title=table.title, mini=options.mini, shorten=options.shorten,
                   shorten_tasks=options.task_length, rows=rows,
                   about=about)
    write_whole(stem.with_suffix('.json'), json.dumps(content, indent=2) + '\n')


def report_stem(table: PaperTable, options: TableOptions) -> Path:
    """The table's files without their endings."""
    return Path(options.work_dir) / (table.name + ('-mini' if options.mini else ''))


def collect(row: PaperRow, runs: Sequence[SeedRun], failures: Failures, options: TableOptions) -> dict:
    """What there is of a row.

    Returns:
        dict: With, among others, ``status``: ``'run'``, ``'partly run'``, ``'failed'``, ``'not run'`` or ``'no
        miniature'``; ``metrics``: task -> :func:`summary`; ``runs``: what was found, one entry a seed.
    """
    source = row.sources.get(options.kind, {})
    found = [read_run(run, options) for run in runs]
    failed = {seed: sentence for (number, seed), sentence in failures.items() if number == row.number}
    metrics = {task: summary([entry['scores'][task] for entry in found if task in entry['scores']])
               for task in COLUMNS}
    logged = sorted({key for entry in found for key in entry['logged']})
    complete = bool(found) and all(task in entry['scores'] for entry in found for task in options.tasks)
    if not source:
        status = 'no miniature' if options.mini else 'not run'
    elif failed:
        status = 'failed'
    elif complete:
        status = 'run'
    else:
        status = 'partly run' if any(entry['scores'] for entry in found) else 'not run'
    note = ''
    if 'checkpoint' in source and not runs:
        note = f'no file {source["checkpoint"]!r}; tools/model_converters/vit_to_mmpretrain.py writes it'
    return dict(
        number=row.number, name=row.name, source=source.get('config') or source.get('checkpoint'),
        options=source.get('options') or {}, status=status, note=note, failures=failed, metrics=metrics,
        logged={key: summary([entry['logged'][key] for entry in found if key in entry['logged']]) for key in logged},
        hours=sum(entry['seconds'] for entry in found) / 3600, resumed=any(entry['resumed'] for entry in found),
        paper={} if options.mini else row.paper, runs=found)


def read_run(run: SeedRun, options: TableOptions) -> dict:
    """Scores, logged figures, time and environment of what is complete of a run."""
    entry = dict(seed=run.seed, folder=str(run.folder), checkpoint=str(run.checkpoint), scores={}, logged={},
                 seconds=0., resumed=False, environments=[])
    parts = []
    if (run.folder / 'pretrain.json').is_file():
        parts.append(json.loads((run.folder / 'pretrain.json').read_text()))
        entry['logged'] = parts[0]['logged']
    for task in COLUMNS:
        try:
            file = evaluation_folder(run, task, options) / 'score.json'
        except UserInputError:  # no such data here, so nothing was asked of it
            continue
        if file.is_file():
            parts.append(json.loads(file.read_text()))
            entry['scores'][task] = parts[-1]['score']
    for part in parts:
        entry['seconds'] += part['seconds']
        entry['resumed'] |= part['resumed']
        entry['environments'].append(part['environment'])
    return entry


def summary(values: Sequence[float]) -> dict | None:
    """Mean, sample standard deviation (over n - 1; None for a single value) and number of values; None of none."""
    if not values:
        return None
    std = statistics.stdev(values) if len(values) > 1 else None
    return dict(mean=statistics.fmean(values), std=std, n=len(values))


def describe(rows: list[dict], options: TableOptions, command: str) -> dict[str, str]:
    """What the numbers were computed with."""
    def used(key: str, by_row: bool = False) -> str:
        texts = {row['number']: '; '.join(dict.fromkeys(
            environment[key] for run in row['runs'] for environment in run['environments'])) for row in rows}
        kinds = list(dict.fromkeys(filter(None, texts.values())))
        if by_row and len(kinds) > 1:
            return ', '.join(f'row {number} {text}' for number, text in texts.items() if text)
        return '; '.join(kinds) or 'nothing has been run'

    hours = ', '.join(f'row {row["number"]} {row["hours"]:.2f}' + (' after being resumed' if row['resumed'] else '')
                      for row in rows if row['hours'])
    length = ' and '.join(f'{name} ' + (f'shortened to {factor:g} of its length' if factor < 1 else 'of full length')
                          for name, factor in (('pre-training', options.shorten), ('evaluation', options.task_length)))
    return {
        'numbers': 'percent; k-NN, linear and fine-tuned are top-1 of the validation images; mean ± sample standard '
                   'deviation over n seeds; of each training the last evaluation, not the best; a student without '
                   'reconstruction keeps an untrained last projection and MLP, which k-NN and linear look at',
        'command': f'`{command}`',
        'seeds': ', '.join(map(str, range(options.seeds))),
        'settings': f'{options.kind}, {length}, {options.gpus} process(es) a training, learning rates scaled to the '
                    'batch' + (', --amp' if options.amp else ''),
        'device': used('device'), 'versions': used('versions'), 'commit': used('commit', by_row=True),
        'hours of pre-training and evaluation, all seeds together': hours or 'nothing has been run'}


def markdown(table: PaperTable, rows: list[dict], about: dict[str, str], options: TableOptions) -> str:
    """The whole Markdown file; a star marks numbers of trainings that were shortened."""
    paper = [key for key in PAPER if any(key in row['paper'] for row in rows)]
    stars = {task: ' *' if min(options.shorten, 1 if task == 'knn' else options.task_length) < 1 else ''
             for task in COLUMNS}  # k-NN trains nothing
    lines = []
    for row in rows:
        cells = [cell(row, task, options, stars[task]) for task in COLUMNS]
        cells += [f'{row["paper"][key]}' if key in row['paper'] else '' for key in paper]
        source = Path(row['source']).stem if row['source'] else ''
        lines.append([row['name'], source, options_text(row['options']), *cells])
    heading = ['row', 'config', 'options', *COLUMNS.values(), *(PAPER[key] for key in paper)]
    lines = ['# ' + table.title + (' (miniature)' if options.mini else ''), '',
             markdown_table(heading, lines, 'lll' + 'r' * (len(heading) - 3)), '']
    if any(stars.values()):
        lines += ['\\* trained for a part of the length of the configs only, see settings', '']
    lines += [f'- row {row["number"]}, seed {seed}, failed: {sentence}' for row in rows
              for seed, sentence in row['failures'].items()]
    lines += [f'- row {row["number"]}, not run: {row["note"]}' for row in rows if row['note']]
    return '\n'.join([*lines, *(f'- {key}: {value}' for key, value in about.items())]) + '\n'


def cell(row: dict, task: str, options: TableOptions, star: str) -> str:
    """A number, or why there is none."""
    found = row['metrics'][task]
    if found:
        std = '' if found['std'] is None else f' ± {found["std"]:.2f}'
        return f'{found["mean"]:.2f}{std} (n={found["n"]}){star}'
    if row['status'] == 'failed' and task in options.tasks:
        return 'failed'
    return 'no miniature' if row['status'] == 'no miniature' else 'not run'


def csv_text(rows: list[dict], options: TableOptions) -> str:
    """One line a row; figures of the log beside the scores."""
    logged = sorted({key for row in rows for key in row['logged']})
    lines = []
    for row in rows:
        line = {key: row[key] for key in ('number', 'name', 'source')}
        line.update(options=options_text(row['options']), status=row['status'])
        for key, value in [*row['metrics'].items(), *((key, row['logged'].get(key)) for key in logged)]:
            line.update({f'{key}_{part}': (value or {}).get(part) for part in ('mean', 'std', 'n')})
        line.update(hours=round(row['hours'], 4), shorten=options.shorten, shorten_tasks=options.task_length)
        if not options.mini:
            line.update({f'paper_{key}': row['paper'].get(key) for key in PAPER})
        lines.append(line)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(lines[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()
