"""Pages of ``docs/`` and ``configs/`` with parts that commands write, between two markers."""
from pathlib import Path

from mimhd_mm.errors import UserInputError
from mimhd_mm.weights.writing import write_whole


def replaced(text: str, begin: str, end: str, body: str) -> str:
    """A text with ``body`` between two lines of it."""
    return text[:text.index(begin)] + begin + '\n\n' + body + '\n\n' + text[text.index(end):]


def write_part(page: Path, begin: str, end: str, body: str) -> None:
    """Replace what is between the two markers of a page.

    Raises:
        UserInputError: If the page or a marker is not there.
    """
    text = page.read_text(encoding='utf-8') if page.is_file() else ''
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise UserInputError(f'{str(page)!r} lacks the lines {begin!r} and {end!r}, between which results go; put them '
                             f'in.')
    write_whole(page, replaced(text, begin, end, body))
