"""Imports only go down, and the library does not know the laboratory."""
import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: top-most first; a file may import from its own folder and from the floors below. What stands on one floor does not
#: import each other.
FLOORS = [
    ('lab.evidence', 'lab.tables', 'lab.speed', 'lab.robustness', 'lab.proof'),
    ('lab', 'lab.pages'),
    ('mimhd_mm.downstream', 'mimhd_mm.measuring'),
    ('mimhd_mm.engine',),  # the package as a whole
    ('mimhd_mm.engine.hooks',),
    ('mimhd_mm.engine.inspection', 'mimhd_mm.engine.optimizers', 'mimhd_mm.engine.teacher_caching'),
    ('mimhd_mm.engine.loading', 'mimhd_mm.engine.multi_student_runner', 'mimhd_mm.engine.commands'),
    ('mimhd_mm.engine.launch',),
    ('mimhd_mm.engine.resume', 'mimhd_mm.engine.preflight', 'mimhd_mm.engine.cached_training'),
    ('mimhd_mm.engine.unwrapped',),
    ('mimhd_mm.visualization',),
    ('mimhd_mm.evaluation',),
    ('mimhd_mm.datasets',),
    ('mimhd_mm.models',),  # the package as a whole
    ('mimhd_mm.models.selfsup',),
    ('mimhd_mm.models.heads', 'mimhd_mm.models.target_generators'),
    ('mimhd_mm.models.necks', 'mimhd_mm.models.losses', 'mimhd_mm.models.matchers',
     'mimhd_mm.models.data_preprocessors'),
    ('mimhd_mm.models.backbones',),
    ('mimhd_mm.models.attention',),
    ('mimhd_mm.models.relation', 'mimhd_mm.models.views', 'mimhd_mm.models.positions',
     'mimhd_mm.models.checkpointing'),
    ('mimhd_mm.weights',),
    ('mimhd_mm.compat', 'mimhd_mm.registry', 'mimhd_mm.random_states', 'mimhd_mm.project', 'mimhd_mm.markdown'),
    ('mimhd_mm.errors', 'mimhd_mm.version'),
]
#: packages that stand on a floor of their own, above what is in them
WHOLE = ('lab', 'mimhd_mm.engine', 'mimhd_mm.models')


def place_of(module: str):
    """The floor and the folder, or file, that a module belongs to; None where it has none."""
    found = [(number, name) for number, names in enumerate(FLOORS) for name in names
             if module == name or module.startswith(name + '.') and name not in WHOLE]
    return max(found, key=lambda place: len(place[1])) if found else None


def module_of(path: Path) -> str:
    return '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')


def imports_of(path: Path):
    """The modules of this repository that a file imports."""
    here = path.relative_to(ROOT).with_suffix('').parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[:len(here) - node.level] if node.level else ()
            package = '.'.join((*base, *(node.module or '').split('.'))).strip('.')
            found = [f'{package}.{alias.name}' if is_module(f'{package}.{alias.name}') else package
                     for alias in node.names]
        else:
            continue
        yield from (module for module in found if module.split('.')[0] in ('mimhd_mm', 'lab'))


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split('.'))
    return path.with_suffix('.py').is_file() or (path / '__init__.py').is_file()


def sources(folder: str):
    return [path for path in sorted((ROOT / folder).rglob('*.py')) if '.mim' not in path.parts]


FILES = [path for folder in ('mimhd_mm', 'lab') for path in sources(folder) if path.name != '__init__.py']
PACKAGES = [path for folder in ('mimhd_mm', 'lab') for path in sources(folder) if path.name == '__init__.py'
            and path.parent != ROOT / 'mimhd_mm']  # which imports all of it


@pytest.mark.parametrize('path', FILES + PACKAGES, ids=module_of)
def test_imports_only_go_down(path):
    own = place_of(module_of(path))
    assert own is not None, 'the file belongs to no floor'
    for module in imports_of(path):
        there = place_of(module)
        assert there is not None and (there == own or there[0] > own[0]), f'{module_of(path)} imports {module}'


@pytest.mark.parametrize('path', [*sources('mimhd_mm'), *sources('tools')], ids=module_of)
def test_the_laboratory_is_not_imported(path):
    assert not [module for module in imports_of(path) if module.split('.')[0] == 'lab']


@pytest.mark.parametrize('path', FILES, ids=module_of)
def test_first_line_says_what_the_file_holds(path):
    assert (ast.get_docstring(ast.parse(path.read_text())) or '').strip()


@pytest.mark.parametrize('path', FILES, ids=module_of)
def test_private_names_of_the_runner_are_read_in_one_folder_only(path):
    if 'resume' not in path.parts:
        assert not re.findall(r'\b(?:runner|loop|train_loop)\._[a-z]\w*', path.read_text())


@pytest.mark.parametrize('room', sorted(path.parent for path in (ROOT / 'lab').glob('*/__init__.py')),
                         ids=lambda path: path.name)
def test_every_room_of_the_laboratory_says_how_it_is_used(room):
    assert f'python -m lab.{room.name}' in (room / 'README.md').read_text()
