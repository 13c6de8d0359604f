"""The protocol as data: tables of rows, read from ``protocol.yml``."""
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from mimhd_mm.errors import UserInputError

FILE = Path(__file__).with_name('protocol.yml')
KINDS = ('student', 'teacher', 'pixels')
ROW_KEYS = {'name', 'kind', 'config', 'options', 'passes', 'images', 'seeds', 'against', 'cost'}
TABLE_KEYS = {'title', 'seeds', 'rows', 'logged', 'note'}


@dataclass(frozen=True)
class ProtocolSettings:
    """What all rows share.

    Attributes:
        images (int): Images to distil on, evenly spaced over the training images.
        epoch (int): E, image passes of a row that says ``E``.
        batch_size (int): Images a step.
        warm_up (float): Share of the steps in which the learning rate rises.
        classes (int): Of the scenes.
        scene_size (tuple): Rows and columns of pixels that scenes are brought to.
        views (int): K, fixed views of each image; every pass over the images takes the next.
        read_out_config (str): Config whose teacher's block is read out of every student.
    """
    images: int
    epoch: int
    batch_size: int
    warm_up: float
    classes: int
    scene_size: tuple[int, int]
    views: int
    read_out_config: str


@dataclass(frozen=True)
class ProtocolRow:
    """A line of a table.

    Attributes:
        name (str): Its name on the page.
        kind (str): ``'student'``, or what is only evaluated: ``'teacher'`` or ``'pixels'``.
        config (str): Config that it starts from, below the project's root.
        options (dict): Dotted keys that it changes.
        passes (int): Images that are shown in training, each view counted; 0 is an untrained student.
        images (int): Different images among them.
        seeds (tuple[int]): One run each.
        against (tuple[str]): Rows of the same table that it is compared with, seed by seed.
        cost (str): A remark on what it costs, for the page.
    """
    name: str
    kind: str
    config: str | None
    options: dict
    passes: int
    images: int
    seeds: tuple[int, ...]
    against: tuple[str, ...]
    cost: str


@dataclass(frozen=True)
class ProtocolTable:
    """A table of the page.

    Attributes:
        name (str): Its key in the file, and the name of its file of results.
        title (str): Its heading.
        rows (tuple[ProtocolRow]): Its lines.
        logged (dict[str, str]): Figures of the training log that have a column: key -> heading.
        note (str): A sentence below the table.
    """
    name: str
    title: str
    rows: tuple[ProtocolRow, ...]
    logged: dict[str, str]
    note: str


@dataclass(frozen=True)
class Protocol:
    """The whole file."""
    settings: ProtocolSettings
    tables: dict[str, ProtocolTable]


def read_protocol(path: Path = FILE) -> Protocol:
    """Read the file.

    Raises:
        UserInputError: If a key is unknown, a row is compared with one that its table lacks, or names repeat.
    """
    content = yaml.safe_load(path.read_text())
    settings = content['settings']
    settings = ProtocolSettings(**dict(settings, scene_size=tuple(settings['scene_size'])))
    return Protocol(settings, {name: read_table(name, table, settings) for name, table in content['tables'].items()})


def read_table(name: str, content: dict, settings: ProtocolSettings) -> ProtocolTable:
    """One table.

    Raises:
        UserInputError: See :func:`read_protocol`.
    """
    check_keys(f'table {name}', content, TABLE_KEYS)
    rows = tuple(read_row(name, row, content['seeds'], settings) for row in content['rows'])
    names = [row.name for row in rows]
    if len(set(names)) < len(names):
        raise UserInputError(f'Table {name!r} has two rows of one name; rename one.')
    for row in rows:
        for other in row.against:
            if other not in names or other == row.name:
                raise UserInputError(f'Row {row.name!r} of table {name!r} is compared with {other!r}; name another row '
                                     f'of the same table.')
    return ProtocolTable(name, content['title'], rows, content.get('logged', {}), content.get('note', ''))


def read_row(table: str, content: dict, seeds: list, settings: ProtocolSettings) -> ProtocolRow:
    """One row; what it does not say is the table's or the protocol's.

    Raises:
        UserInputError: See :func:`read_protocol`.
    """
    where = f'row {content.get("name")!r} of table {table}'
    check_keys(where, content, ROW_KEYS)
    kind = content.get('kind', 'student')
    if kind not in KINDS or (kind != 'pixels' and 'config' not in content):
        raise UserInputError(f'The {where} needs a kind of {", ".join(KINDS)} and, but for pixels, a config.')
    against = content.get('against', [])
    return ProtocolRow(
        name=content['name'], kind=kind, config=content.get('config'), options=content.get('options', {}),
        passes=count_passes(content.get('passes', 'E'), settings.epoch) if kind == 'student' else 0,
        images=content.get('images', settings.images),
        seeds=tuple(content.get('seeds', seeds)) if kind == 'student' else (0, ),
        against=tuple([against] if isinstance(against, str) else against), cost=content.get('cost', ''))


def check_keys(where: str, content: dict, known: set) -> None:
    """Refuse what would be ignored.

    Raises:
        UserInputError: If a key is unknown.
    """
    unknown = sorted(set(content) - known)
    if unknown:
        raise UserInputError(f'The {where} has the key {unknown[0]!r}; known are {", ".join(sorted(known))}.')


def count_passes(text, epoch: int) -> int:
    """Image passes: a number, or a multiple of E such as ``E``, ``2E`` or ``1.5E``.

    Raises:
        UserInputError: If it is neither.
    """
    if isinstance(text, int):
        return text
    found = re.fullmatch(r'(\d+(?:\.\d+)?)?E', str(text))
    if not found:
        raise UserInputError(f'passes={text!r} is neither a number of images nor a multiple of E such as 2E.')
    return round(float(found[1] or 1) * epoch)
