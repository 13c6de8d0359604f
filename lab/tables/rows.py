"""The rows of the paper's tables and figures, as ``lab/tables/tables.yml`` lists them."""
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from mimhd_mm.errors import UserInputError

KINDS = ('full', 'mini')


@dataclass(frozen=True)
class PaperRow:
    """A row of a table.

    Attributes:
        number (int): Counted from 1.
        name (str): As the paper has it.
        sources (dict): ``'full'`` and, where there is a miniature, ``'mini'`` -> ``dict(config=..., options=...)``,
            with ``untrained=True`` for its student as it is before the first step; or ``dict(checkpoint=...)``.
        paper (dict): The paper's numbers, percent: of ``top1`` and ``mIoU``.
    """
    number: int
    name: str
    sources: dict[str, dict]
    paper: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PaperTable:
    """A table or figure of the paper.

    Attributes:
        name (str): On the command line.
        title (str): For the heading.
        rows (list[PaperRow]): In the paper's order.
    """
    name: str
    title: str
    rows: list[PaperRow]


def tables_file() -> Path:
    """The list of the paper's tables that this project holds."""
    return Path(__file__).with_name('tables.yml')


def read_tables(path: Path) -> dict[str, PaperTable]:
    """Read a list of tables, by name; its format is described at the top of ``lab/tables/tables.yml``.

    Raises:
        UserInputError: If the file is missing or a row is not of that format.
    """
    try:
        content = yaml.safe_load(Path(path).read_text())
        tables = {name: PaperTable(name, table['title'], [
            PaperRow(number, row['name'], {kind: dict(row[kind]) for kind in KINDS if kind in row},
                     row.get('paper', {}))
            for number, row in enumerate(table['rows'], start=1)]) for name, table in content.items()}
    except FileNotFoundError as error:
        raise UserInputError(f'No file {str(path)!r} with tables; leave --tables out for those of the paper.'
                             ) from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        message = ' '.join(f'{type(error).__name__}: {error}'.split())
        raise UserInputError(f'{str(path)!r} is no list of tables as lab/tables/tables.yml describes it ({message}).'
                             ) from error
    for table in tables.values():
        if not re.fullmatch(r'\w[\w.=-]*', str(table.name)):  # files are named after it
            raise UserInputError(f'{str(path)!r}: a table cannot be called {table.name!r}; take letters, digits and . '
                                 f'_ = - for its name.')
        for row in table.rows:
            for kind, source in row.sources.items():
                if not source.keys() <= {'config', 'options', 'checkpoint', 'untrained'} or \
                        ('config' in source) == ('checkpoint' in source):
                    raise UserInputError(f'{str(path)!r}, {table.name}, row {row.number}: {kind!r} holds either a '
                                         f'`config`, maybe with `options` and `untrained`, or a `checkpoint`, not '
                                         f'{source}.')
    return tables


def choose_table(tables: dict[str, PaperTable], name: str | None) -> PaperTable:
    """The table of that name.

    Raises:
        UserInputError: If there is none.
    """
    if name not in tables:
        given = 'none was given' if name is None else f'not {name!r}'
        raise UserInputError(f'A table is one of {", ".join(tables)}, {given}; --list shows their rows.')
    return tables[name]


def choose_rows(table: PaperTable, numbers: Sequence[int] | None) -> list[int]:
    """The numbers of the rows to run.

    Raises:
        UserInputError: If the table has no such row.
    """
    known = [row.number for row in table.rows]
    unknown = sorted(set(numbers or []) - set(known))
    if unknown:
        raise UserInputError(f'{table.name} has rows 1 to {len(known)}, not {", ".join(map(str, unknown))}; --list '
                             f'shows them.')
    return sorted(set(numbers)) if numbers else known


def options_text(options: dict | None) -> str:
    """Options as they follow ``--cfg-options``."""
    return ' '.join(f'{key}={value}' for key, value in (options or {}).items())


def describe_tables(tables: dict[str, PaperTable]) -> str:
    """Tables and rows with their configs, for a terminal."""
    lines = []
    for table in tables.values():
        lines += ['', f'{table.name}: {table.title}']
        for row in table.rows:
            lines.append(f'  {row.number:>2}  {row.name}')
            for kind in KINDS:
                source = row.sources.get(kind)
                text = 'none' if source is None else \
                    ' '.join(filter(None, [source.get('config') or source.get('checkpoint'),
                                           options_text(source.get('options'))]))
                lines.append(f'        {kind}: {text}')
    return '\n'.join(lines[1:])
