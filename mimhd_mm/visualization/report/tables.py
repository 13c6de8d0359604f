"""Read downstream numbers that tools/evaluate_student.py and lab/tables/run_table.py wrote as JSON."""
import json
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import UserInputError
from ...evaluation.tasks import COLUMNS, PAPER


@dataclass(frozen=True)
class Cell:
    """What stands in a cell: a text, and the exact number where it is one."""
    text: str
    value: float | None = None


@dataclass
class ReportTable:
    """A table as it is printed; the first cell of a row is its heading.

    Attributes:
        title (str): Above it.
        source (str): The file.
        header (list[str]): One a column.
        rows (list[list[Cell]]): The body.
        notes (dict): What the numbers were computed with.
    """
    title: str
    source: str
    header: list[str]
    rows: list[list[Cell]]
    notes: dict[str, str] = field(default_factory=dict)


def find_tables(folder: Path) -> list[ReportTable]:
    """Tables in a work dir and in the folders right below it."""
    files = sorted({*folder.glob('*.json'), *folder.glob('*/table.json')})
    return [table for table in map(parse_table, files) if table is not None]


def read_tables(path: Path) -> list[ReportTable]:
    """The table of a file, or those of a folder.

    Raises:
        UserInputError: If there is none.
    """
    found = find_tables(path) if path.is_dir() else [parse_table(path)] if path.is_file() else []
    if not found or found == [None]:
        raise UserInputError(f'--tables {str(path)!r} is no table; give a JSON file of tools/evaluate_student.py or '
                             f'lab/tables/run_table.py, or the folder with it.')
    return found


def parse_table(file: Path) -> ReportTable | None:
    """A JSON file as a table, None where it is something else."""
    try:
        content = json.loads(file.read_text())
        rows = content['rows']
        about = {str(key): str(value).strip('`') for key, value in content['about'].items()}
        if 'results' in content:
            return student_table(rows, content['results'], about, file)
        return paper_table(content, rows, about, file)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None


def student_table(rows: list[dict], results: list[dict], about: dict[str, str], file: Path) -> ReportTable:
    """Of tools/evaluate_student.py."""
    shorten = {(result['student'], result['task']): result.get('shorten', 1.) for result in results}
    tasks = [task for task in COLUMNS if any(row.get(task) is not None for row in rows)]
    body = [[Cell(row['student']),
             *(number(row.get(task), shorten.get((row['student'], task), 1.), task) for task in tasks),
             Cell(row['file'] or 'random weights')] for row in rows]
    return ReportTable('Students', str(file), ['student', *(COLUMNS[task] for task in tasks), 'file'], body, about)


def paper_table(content: dict, rows: list[dict], about: dict[str, str], file: Path) -> ReportTable:
    """Of lab/tables/run_table.py."""
    tasks = [task for task in COLUMNS if any(row['metrics'].get(task) for row in rows)] or list(COLUMNS)[:1]
    paper = [key for key in PAPER if any(key in row.get('paper', {}) for row in rows)]
    shorten = content.get('shorten', 1.)
    lengths = {task: min(shorten, 1. if task == 'knn' else content.get('shorten_tasks', shorten)) for task in tasks}
    body = []
    for row in rows:
        cells = [summary(row['metrics'].get(task), row['status'], lengths[task]) for task in tasks]
        cells += [number(row['paper'].get(key)) if key in row['paper'] else Cell('') for key in paper]
        body.append([Cell(row['name']), *cells])
    title = content['title'] + (' (miniature)' if content.get('mini') else '')
    header = ['row', *(COLUMNS[task] for task in tasks), *(PAPER[key] for key in paper)]
    return ReportTable(title, str(file), header, body, about)


def number(value: float | None, shorten: float = 1., task: str = '') -> Cell:
    """A percentage; a star marks a training that was shortened, and k-NN trains nothing."""
    if value is None:
        return Cell('not run')
    return Cell(f'{value:.2f}' + (' *' if shorten < 1 and task != 'knn' else ''), value)


def summary(found: dict | None, status: str, shorten: float) -> Cell:
    """Mean and spread over seeds, or why there is none; here k-NN too is of a shortened pre-training."""
    if not found:
        return Cell(status if status in ('failed', 'no miniature') else 'not run')
    std = '' if found['std'] is None else f' ± {found["std"]:.2f}'
    return Cell(f'{found["mean"]:.2f}{std} (n={found["n"]})' + (' *' if shorten < 1 else ''), found['mean'])
