"""The map of every row of the paper's tables to its files: the generated part of ``configs/README.md``."""
import re
from collections.abc import Iterator
from pathlib import Path

from mimhd_mm.markdown import markdown_table

from ..pages import write_part
from .plan import read_base
from .rows import PaperRow, PaperTable, options_text

BEGIN = '<!-- begin: written by python -m lab.tables.run_table --readme -->'
END = '<!-- end -->'
#: method, size and data in the name of a pre-training config
STEM = re.compile(r'^(?P<method>[a-z-]+)_vit-(?P<size>[a-z]+)-p\d+.*_(?P<data>in1k|tiny-imagenet(?:-64px)?)$')
PAPER = {'top1': 'top-1', 'mIoU': 'mIoU'}


def write_readme(readme: Path, tables: dict[str, PaperTable]) -> None:
    """Replace what is between the two markers.

    Raises:
        UserInputError: If the file or a marker is not there.
    """
    write_part(readme, BEGIN, END, generated_part(readme.parent, tables))


def generated_part(configs: Path, tables: dict[str, PaperTable]) -> str:
    """The tables and what follows pre-training, as Markdown with links relative to ``configs``."""
    parts = [table_part(table) for table in tables.values()]
    return '\n\n'.join([*parts, downstream_part(configs, tables)])


def table_part(table: PaperTable) -> str:
    """Rows, files, options and the paper's numbers of one table."""
    paper = any(row.paper for row in table.rows)
    lines = []
    for row in table.rows:
        numbers = ', '.join(f'{row.paper[key]} {PAPER[key]}' for key in PAPER if key in row.paper)
        cells = [row.number, row.name, source_text(row, 'full'), source_text(row, 'mini')]
        lines.append([*cells, *([numbers or 'no number'] if paper else [])])
    heading = ['', 'row', 'config', 'miniature', *(['the paper'] if paper else [])]
    return (f'## {table.title}\n\n`python -m lab.tables.run_table {table.name}`\n\n'
            + markdown_table(heading, lines, 'r' + 'l' * (len(heading) - 1)))


def source_text(row: PaperRow, kind: str) -> str:
    """Link and options of a row, or the command that imports its weights."""
    source = row.sources.get(kind)
    if source is None:
        return 'none'
    if 'checkpoint' in source:
        return f'`python tools/model_converters/vit_to_mmpretrain.py FILE {source["checkpoint"]}`'
    options = options_text(source.get('options'))
    return link(Path(source['config']).relative_to('configs')) + (f'<br>`--cfg-options {options}`' if options else '')


def link(path: Path) -> str:
    """A Markdown link to a file below ``configs``."""
    return f'[{path.stem}]({path.as_posix()})'


def downstream_part(configs: Path, tables: dict[str, PaperTable]) -> str:
    """Which configs fine-tune, probe and segment with what the rows' configs train."""
    lines = []
    for method, size, data in students(tables):
        own = re.compile(rf'/{method}_vit-{size}-\S*_{data}/epoch_\d+\.pth')  # what a row's run leaves
        finetuned, segmented = ([path for path in sorted((configs / kind).rglob(pattern)) if own.search(
            read_base(path).model.backbone.init_cfg.checkpoint)] for kind, pattern in (
                ('finetune', f'vit-{size}-p*_{method}-*-pre_*_{data}.py'),
                ('segmentation', f'{method}-vit-{size}*.py')))
        linear = [path for path in finetuned if '-linear-' in path.name] + [
            path for path in segmented if '_linear_' in path.name]
        kinds = [path for path in finetuned if path not in linear], linear, [
            path for path in segmented if path not in linear]
        cells = ['<br>'.join(link(path.relative_to(configs)) for path in kind) or '–' for kind in kinds]
        lines.append([f'{method}, {size}, {data}', *cells])
    return '## After pre-training\n\n' + markdown_table(
        ['method, size, data', 'fine-tuning', 'linear layer', 'segmentation'], lines, 'llll')


def students(tables: dict[str, PaperTable]) -> Iterator[tuple[str, str, str]]:
    """Method, size and data of every config in the tables, each once, in their order."""
    configs: list[str] = [source['config'] for kind in ('full', 'mini') for table in tables.values()
                          for row in table.rows for source in [row.sources.get(kind, {})] if 'config' in source]
    matches = (STEM.match(Path(config).stem) for config in configs)
    yield from dict.fromkeys(match.group('method', 'size', 'data') for match in matches if match)
