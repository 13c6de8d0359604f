"""What all plotly figures of the report share.

The page sets colours, because they depend on its light or dark theme: a trace names its run in ``meta``, and
``report.js`` colours it.
"""
import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import UserInputError

try:
    import plotly.graph_objects as go
    from plotly.offline import get_plotlyjs
except ImportError:  # said by check_installed, when a report is asked for
    go = None


@dataclass
class Figure:
    """A figure of the page.

    Attributes:
        id (str): Of its element.
        title (str): Above it.
        text (str): What it shows, in words; the alternative text.
        meaning (str): How to read it, or ''.
        content (dict): ``data`` and ``layout`` of plotly.
        summary (sequence): Of each line of a figure of curves what ``curve_figures.summarise`` tells.
    """
    id: str
    title: str
    text: str
    meaning: str
    content: dict[str, Any]
    summary: Sequence[tuple] = ()


def check_installed() -> None:
    """Check that plotly is installed.

    Raises:
        UserInputError: If it is not.
    """
    if go is None:
        raise UserInputError('A report is drawn by plotly, which is not installed; install it with `pip install -r '
                             'requirements/report.txt`.')


def plotly_source() -> str:
    """plotly.js, whole, as the Python package holds it."""
    return get_plotlyjs()


def content(figure: 'go.Figure') -> dict[str, Any]:
    """A figure as plotly.js takes it, without plotly's own template, which the page's colours replace."""
    content = figure.to_plotly_json()
    content['layout'].pop('template', None)
    return content


def thin(items: list, most: int) -> list:
    """At most ``most`` items, evenly spaced, with the last and, from two on, the first."""
    if len(items) <= most:
        return items
    if most == 1:
        return items[-1:]
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def slug(text: str) -> str:
    """A text as a part of an id: what is not a letter, digit or hyphen becomes its number."""
    return re.sub(r'[^a-zA-Z0-9-]', lambda match: f'_{ord(match[0]):x}_' if match[0] != '_' else '_', text)


def escape(text: str) -> str:
    """A text for plotly, which reads some tags in names and annotations."""
    return html.escape(text)


def to_json(value: Any) -> str:
    """JSON for a data block of a page: no ``<``, so nothing in it ends the block, and ASCII."""
    return json.dumps(value, allow_nan=False).replace('<', '\\u003c')
