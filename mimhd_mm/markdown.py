"""Tables in Markdown."""
from collections.abc import Iterable, Sequence


def markdown_table(heading: Sequence[object], rows: Iterable[Sequence[object]], sides: str) -> str:
    """A table, without a line break at its end.

    Args:
        heading (sequence): One text a column.
        rows (iterable): Sequences of one cell a column.
        sides (str): A letter a column: ``'l'`` for text to the left, ``'r'`` for numbers to the right.
    """
    rule = [dict(l='---', r='---:')[side] for side in sides]
    return '\n'.join('|' + '|'.join(f' {cell} ' if str(cell) else ' ' for cell in line) + '|'
                     for line in (heading, rule, *rows))
