"""The performance page: run its measurements, keep each as a small file, write the page from these alone."""
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml

from mimhd_mm.errors import UserInputError
from mimhd_mm.measuring.record import legend, write_json
from mimhd_mm.weights.writing import write_whole

from .. import ROOT
from ..pages import replaced
from .goals import table_rows
from .report import markdown

#: part of the page that is made of all files
GOALS = 'goals'
#: word of a command -> the argument of ``run`` that it stands for
PLACES = {'IMAGES': 'images', 'TEACHER': 'teacher'}
PART = re.compile(r'(<!-- begin: (\S+) -->\n).*?(<!-- end: \2 -->)', re.S)


def list_file() -> Path:
    """The list of measurements."""
    return Path(__file__).with_name('performance.yml')


def read_list() -> dict[str, str]:
    """Name -> command of ``lab.speed`` and its arguments."""
    return yaml.safe_load(list_file().read_text())


def command_of(text: str) -> str:
    """The command line of an entry of the list, as the page shows it."""
    return f'python -m lab.speed.{text}'


def picture_of(name: str, text: str, pictures: Path) -> Path | None:
    """The plot of a measurement of growth; None of others."""
    return pictures / f'step_time_{name}.png' if '--sweep' in text.split() else None


def run_list(names: Sequence[str], results: Path, pictures: Path, again: bool = False,
             **places: str | None) -> dict[str, str]:
    """Run measurements one after the other, each a process of its own, and keep what they leave.

    Without names, those that are kept already are left out. So is what cannot be run here. Each is told in a sentence.

    Args:
        names (Sequence[str]): Of the list, in this order; empty for all.
        results (Path): Folder for ``<name>.json``.
        pictures (Path): Folder for plots.
        again (bool): Replace what is kept. Defaults to False.
        **places (str, optional): Folder and file for :data:`PLACES`.

    Returns:
        dict: What failed: name -> a sentence.

    Raises:
        UserInputError: Before the first run, if a name is unknown, or is kept already and not to be replaced.
    """
    entries, failures = read_list(), {}
    for name in names:
        if name not in entries:
            raise UserInputError(f'The list has {", ".join(entries)}, not {name!r}.')
        if (results / f'{name}.json').exists() and not again:
            raise UserInputError(f'{str(results / name)}.json is there already; give --again to replace it.')
    places = {word: places.get(key) for word, key in PLACES.items()}
    for folder in (results, pictures):
        folder.mkdir(parents=True, exist_ok=True)
    for name in names or entries:
        reason = why_not(name, entries[name], results, again, places)
        if reason:
            print(f'{name}: {reason}', flush=True)
            continue
        print(f'{name}: {command_of(entries[name])}', flush=True)
        status = run_one(name, entries[name], results, picture_of(name, entries[name], pictures), places)
        if status:
            failures[name] = f'its command ended with status {status}; what it printed says why'
    return failures


def why_not(name: str, text: str, results: Path, again: bool, places: dict[str, str | None]) -> str | None:
    """A sentence on why a measurement is left out, or None."""
    if (results / f'{name}.json').exists() and not again:
        return 'is kept already; --again replaces it.'
    if name.startswith('gpu-') and not torch.cuda.is_available():
        return 'left out, it needs a GPU and none is visible.'
    missing = [f'--{PLACES[word]}' for word, value in places.items() if word in text and value is None]
    return f'left out, it needs {" and ".join(missing)}.' if missing else None


def words_of(text: str, places: dict[str, str | None]) -> list[str]:
    """The words of an entry of the list, with the folders and files of this machine in their places."""
    return [re.sub('|'.join(places), lambda word: str(Path(places[word[0]]).resolve()), part)
            for part in shlex.split(text)]


def run_one(name: str, text: str, results: Path, picture: Path | None, places: dict[str, str | None]) -> int:
    """Run one measurement; its file and its plot are replaced when it has come to its end.

    Returns:
        int: The status of its process.
    """
    script, *arguments = words_of(text, places)
    with tempfile.TemporaryDirectory() as folder:
        out, plot = Path(folder) / 'out.json', Path(folder) / 'plot.png'
        extra = ['--out', str(out)] + (['--plot', str(plot)] if picture else [])
        command = [sys.executable, '-u', '-m', f'lab.speed.{script}', *extra, *arguments]
        status = subprocess.run(command, cwd=ROOT).returncode
        if status:
            return status
        figures = json.loads(out.read_text())
        figures['about']['command'] = command_of(text)  # folders of this machine are nobody's concern
        write_json(str(results / f'{name}.json'), figures)
        if picture:
            picture.write_bytes(plot.read_bytes())
    return 0


def read_results(results: Path) -> dict[str, dict]:
    """What is kept, by name, in the list's order.

    Raises:
        UserInputError: If a file is not one of these.
    """
    kept = {}
    for name in read_list():
        path = results / f'{name}.json'
        if path.is_file():
            try:
                kept[name] = json.loads(path.read_text())
                lacking = {'table', 'about', 'notes'} - set(kept[name])
            except (ValueError, TypeError):
                lacking = {'JSON'}
            if lacking:
                raise UserInputError(f'{str(path)!r} has no {sorted(lacking)[0]}; remove it and measure again.')
    return kept


def write_page(page: Path, results: Path, pictures: Path) -> None:
    """Replace each part of a page, between ``<!-- begin: NAME -->`` and ``<!-- end: NAME -->``, by what is kept of it.

    Raises:
        UserInputError: If the page is missing, or its parts are not those of the list and ``goals``, once each.
    """
    if not page.is_file():
        raise UserInputError(f'No page {str(page)!r}; give --page FILE.')
    text, entries, kept = page.read_text(encoding='utf-8'), read_list(), read_results(results)
    found, wanted = [match[2] for match in PART.finditer(text)], [GOALS, *entries]
    odd = sorted({name for name in found if name not in wanted or found.count(name) > 1} | {*wanted} - {*found})
    if odd:
        often = 'once.' if odd[0] in wanted else f'no more, since {list_file().name} has no {odd[0]!r}.'
        raise UserInputError(f'{str(page)!r} is to have the lines "<!-- begin: {odd[0]} -->" and '
                             f'"<!-- end: {odd[0]} -->" {often}')

    for name in found:
        body = markdown(table_rows(kept)) if name == GOALS else section(
            name, entries[name], kept.get(name), picture_of(name, entries[name], pictures), page)
        text = replaced(text, f'<!-- begin: {name} -->', f'<!-- end: {name} -->', body)
    write_whole(page, text)


def section(name: str, text: str, figures: dict | None, picture: Path | None, page: Path) -> str:
    """What the page shows of a measurement: plot, table and legend, or the command where it was not run."""
    if figures is None:
        return f'Not run: `{command_of(text)}`'
    parts: list[str] = []
    if picture is not None and picture.is_file():
        path = Path(os.path.relpath(picture, page.parent)).as_posix()
        parts.append(f'![Seconds a step against {figures["results"][0]["swept"]}, by variant]({path})')
    return '\n\n'.join([*parts, '\n'.join(figures['table']), legend(figures['about'], figures['notes'])])


def listing() -> str:
    """The list, a command a line."""
    return '\n'.join(f'{name}: {command_of(text)}' for name, text in read_list().items())
