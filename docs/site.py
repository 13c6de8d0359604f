"""What mkdocs asks for: pages made of files outside docs/, their links, and Sphinx roles in docstrings."""
import os
import re
from pathlib import Path

import griffe
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
#: file of the repository -> page of the site
PAGES = {'README.md': 'index.md', 'CONTRIBUTING.md': 'contributing.md', 'CHANGELOG.md': 'changelog.md',
         'configs/README.md': 'configs.md'}
API = ('models', 'datasets', 'evaluation', 'engine')
LINK = re.compile(r'(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)')
ROLE = re.compile(r':\w+:`~?(?:\w+\.)*?(\w+(?:\.\w+)?)`')


def on_files(files: Files, config) -> Files:
    """Add the pages that are made of other files."""
    for source, page in PAGES.items():
        if (ROOT / source).is_file():
            files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    for package in API:
        files.append(File.generated(config, f'api/{package}.md', content=api_page(package)))
    return files


def api_page(package: str) -> str:
    """The page of a package: every module that defines something, in alphabetical order."""
    modules = ['.'.join(path.relative_to(ROOT).with_suffix('').parts)
               for path in sorted((ROOT / 'mimhd_mm' / package).rglob('*.py')) if path.name != '__init__.py']
    return '\n\n'.join([f'# mimhd_mm.{package}', *(f'## {name}\n\n::: {name}' for name in modules)]) + '\n'


def on_page_markdown(markdown: str, page, **_) -> str:
    """Turn links between files of the repository into links between pages; a file that has no page keeps its name."""
    here = page.file.src_uri
    source = next((name for name, uri in PAGES.items() if uri == here), f'docs/{here}')

    def relink(match: re.Match) -> str:
        image, text, target, anchor = match.groups()
        path = os.path.normpath(os.path.join(os.path.dirname(source), target))
        if path in PAGES:
            uri = PAGES[path]
        elif path.startswith('docs/') and (ROOT / path).is_file():
            uri = path.removeprefix('docs/')
        else:  # a file without a page; a broken link stays as it is, and the build fails on it
            return text if (ROOT / path).exists() else match[0]
        return f'{image}[{text}]({os.path.relpath(uri, os.path.dirname(here) or ".")}{anchor or ""})'

    return LINK.sub(relink, markdown)


class PlainRoles(griffe.Extension):
    """Show ``:class:`~a.b.C` `` of a docstring as code."""

    def on_object(self, *, obj: griffe.Object, **_) -> None:
        if obj.docstring is not None:
            obj.docstring.value = ROLE.sub(r'`\1`', obj.docstring.value)
