"""Imports only go down the layers."""
import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / 'mimhd_mm'

#: top-most first; a file may import from its own layer and those below
LAYERS = [
    ('downstream', 'engine', 'measuring', 'visualization', 'evaluation', 'datasets'),
    ('models.selfsup',),  # and the package `models` as a whole
    ('models.heads', 'models.target_generators'),
    ('models.backbones', 'models.necks', 'models.losses', 'models.matchers', 'models.data_preprocessors'),
    ('models.relation', 'models.views', 'models.mae_files', 'models.vit_files', 'models.checkpointing', 'weights'),
    ('errors', 'registry', 'compat', 'states', 'project', 'version'),
]


def layer_of(module: str):
    if module == 'models':
        return 1
    for number, names in enumerate(LAYERS):
        if any(module == name or module.startswith(name + '.') for name in names):
            return number
    return None


def imports_of(path: Path):
    """Modules of this package that a file imports, relative to the package."""
    here = path.relative_to(PACKAGE).with_suffix('').parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[:len(here) - node.level]
            yield '.'.join((*base, *(node.module or '').split('.'))).strip('.')
        elif isinstance(node, ast.ImportFrom) and (node.module or '').startswith('mimhd_mm.'):
            yield node.module.removeprefix('mimhd_mm.')


FILES = [path for path in PACKAGE.rglob('*.py')
         if path.name != '__init__.py' and '.mim' not in path.parts]


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_go_down(path):
    own = layer_of('.'.join(path.relative_to(PACKAGE).with_suffix('').parts))
    assert own is not None, 'the file belongs to no layer'
    for module in imports_of(path):
        below = layer_of(module)
        assert below is not None and below >= own, f'{path.name} imports {module}'


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_first_line_says_what_the_file_holds(path):
    assert (ast.get_docstring(ast.parse(path.read_text())) or '').strip()


def test_mmseg_is_not_imported():
    import subprocess
    import sys
    code = "import mimhd_mm, sys; sys.exit('mmseg' in sys.modules)"
    assert subprocess.run([sys.executable, '-W', 'ignore', '-c', code]).returncode == 0
