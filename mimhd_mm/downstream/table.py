"""Write the table of downstream numbers with the software and hardware that computed it."""
import csv
import json
from pathlib import Path

from ..evaluation.tasks import COLUMNS
from ..markdown import markdown_table
from .settings import EvaluatedStudent, Options


def write_table(students: list[EvaluatedStudent], results: list[dict], options: Options, command: str) -> None:
    """Write ``table.md``, ``table.csv`` and ``table.json`` into the work dir.

    Args:
        students (list[EvaluatedStudent]): The rows.
        results (list[dict]): What there is so far, of ``result.json``.
        options (Options): What was asked for.
        command (str): The command line.
    """
    scores = {(result['student'], result['task']): result['score'] for result in results}
    rows = [dict(student=student.name, **{task: scores.get((student.name, task)) for task in COLUMNS},
                 file=student.path, sha256=student.sha256) for student in students]
    about = describe(results, options, command)
    folder = Path(options.work_dir)
    text = '\n'.join([markdown(rows, options.shorten), *(f'- {key}: {value}' for key, value in about.items()), ''])
    (folder / 'table.md').write_text(text)
    (folder / 'table.json').write_text(json.dumps(dict(rows=rows, about=about, results=results), indent=2) + '\n')
    with open(folder / 'table.csv', 'w', newline='') as file:
        writer = csv.DictWriter(file, [*rows[0], 'shorten'])
        writer.writeheader()
        writer.writerows(dict(row, shorten=options.shorten) for row in rows)


def markdown(rows: list[dict], shorten: float) -> str:
    """Rows of percentages; a star marks trainings that were shortened."""
    lines = []
    for row in rows:
        stars = {task: ' *' if shorten < 1 and task != 'knn' else '' for task in COLUMNS}
        cells = ['not run' if row[task] is None else f'{row[task]:.2f}{stars[task]}' for task in COLUMNS]
        source = [row['file'], row['sha256'][:12]] if row['file'] else ['random weights', '']
        lines.append([row['student'], *cells, *source])
    table = markdown_table(['student', *COLUMNS.values(), 'file', 'sha256'], lines, 'l' + 'r' * len(COLUMNS) + 'll')
    note = f'\n\n\\* trained for {shorten:g} of the length of its config only' if shorten < 1 else ''
    return table + note + '\n'


def describe(results: list[dict], options: Options, command: str) -> dict[str, str]:
    """Describe how the numbers were computed, also for earlier results that differ."""
    def used(key: str) -> str:
        return '; '.join(dict.fromkeys(result['environment'][key] for result in results))

    times = (f'{result["student"]} {result["task"]} {result["seconds"]:.0f} s'
             + (' after being resumed' if result['resumed'] else '') for result in results)
    return {
        'numbers': 'percent; k-NN, linear and fine-tuned are top-1 of the validation images, k-NN with k=20 and T=0.07 '
                   'on the mean patch token; of each training the last evaluation, not the best',
        'command': f'`{command}`',
        'settings': f'{options.settings.name}' + (f', shortened to {options.shorten:g}' if options.shorten < 1 else '')
                    + (', --amp' if options.amp else '') + f', {options.gpus} process(es) a training, learning rates '
                    'scaled to the batch',
        'seed': str(options.seed), 'device': used('device'), 'versions': used('versions'), 'commit': used('commit'),
        'time': ', '.join(times)}
