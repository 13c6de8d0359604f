"""What a wheel holds, how configs are found through the package, version checks, and the shell scripts."""
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.fileio import load
from packaging.requirements import Requirement

import mimhd_mm
from mimhd_mm import compat
from mimhd_mm.registry import MODELS

from .test_tools.commands import call

ROOT = Path(__file__).parents[1]
MIM = Path(mimhd_mm.__file__).parent / '.mim'
SCRIPTS = sorted([*(ROOT / 'tools').glob('*.sh'), ROOT / '.ci' / 'run'])
STACK = ('mmengine', 'mmcv', 'mmpretrain', 'mmsegmentation')
DEMO = {'tools/quickstart.py', 'tools/quickstart.sh', 'tools/digit_scenes.py'}
TWINS = {f'{prefix}{name}' for prefix in ('', 'onedl-') for name in STACK}


def requirements(name: str) -> list:
    lines = (line.split('#')[0].strip() for line in (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines())
    return [Requirement(line) for line in lines if line]


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """A wheel built from a copy of the repository in which a development install has left links."""
    pytest.importorskip('setuptools')
    pytest.importorskip('wheel')
    source, out = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('wheel')
    ignored = shutil.ignore_patterns('__pycache__', '.mim')
    for name in ('mimhd_mm', 'configs', 'tools', 'requirements', 'lab'):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ('pyproject.toml', 'setup.py', 'MANIFEST.in', 'model-index.yml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, source)
    (source / 'mimhd_mm' / '.mim').mkdir()
    (source / 'mimhd_mm' / '.mim' / 'configs').symlink_to(source / 'gone')  # of an install that has moved since
    subprocess.run([sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '--no-index',
                    '--disable-pip-version-check', '--wheel-dir', out, source], check=True, capture_output=True)
    with zipfile.ZipFile(next(out.glob('mimhd_mm-*.whl'))) as file:
        yield file


@pytest.mark.slow
def test_wheel_holds_configs_and_tools(wheel):
    def files(folder, suffixes):
        return {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob('*') if path.suffix in suffixes}

    inside = {name[len('mimhd_mm/.mim/'):] for name in wheel.namelist() if name.startswith('mimhd_mm/.mim/')}
    expected = files('configs', {'.py', '.yml'}) | files('tools', {'.py', '.sh'}) - DEMO | {'model-index.yml'}
    assert expected <= inside
    config = 'configs/_base_/default_runtime.py'
    assert wheel.read(f'mimhd_mm/.mim/{config}') == (ROOT / config).read_bytes()
    assert not [name for name in inside if '__pycache__' in name]


@pytest.mark.slow
def test_wheel_holds_every_module_and_no_test(wheel):
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / 'mimhd_mm').rglob('*.py')
               if '.mim' not in path.parts}
    assert modules <= set(wheel.namelist())
    assert not [name for name in wheel.namelist() if name.startswith(('tests/', 'tools/', 'configs/'))]


@pytest.mark.slow
def test_wheel_holds_what_the_page_of_a_report_is_made_of(wheel):
    folder = 'mimhd_mm/visualization/report'
    files = {path.name for path in (ROOT / folder).iterdir() if path.is_file()}
    assert {'page.html', 'style.css', 'report.js'} < files
    assert {f'{folder}/{name}' for name in files} <= set(wheel.namelist())


@pytest.mark.slow
def test_wheel_holds_no_laboratory_and_no_demo(wheel):
    folders = {part for name in wheel.namelist() for part in name.split('/')[:-1]}
    assert 'lab' not in folders and 'mimhd_mm' in folders
    laboratory = {path.read_bytes(): path.name for path in (ROOT / 'lab').rglob('*.py')}
    assert 'hostile_files.py' in laboratory.values()
    assert not [name for name in wheel.namelist() if wheel.read(name) in laboratory]  # under another name either
    assert not {f'mimhd_mm/.mim/{name}' for name in DEMO} & set(wheel.namelist())


@pytest.mark.slow
def test_wheel_says_what_it_is(wheel):
    """Version, licence and that its annotations are there to be used."""
    metadata = wheel.read(next(name for name in wheel.namelist() if name.endswith('/METADATA'))).decode()
    for line in (f'Version: {mimhd_mm.__version__}', 'Requires-Python: >=3.10', 'License: Apache-2.0'):
        assert line in metadata.splitlines()
    assert 'mimhd_mm/py.typed' in wheel.namelist()
    text = next(name for name in wheel.namelist() if name.endswith('/LICENSE'))
    assert wheel.read(text) == (ROOT / 'LICENSE').read_bytes()


@pytest.mark.slow
def test_wheel_works_without_a_clone(wheel, tmp_path):
    """Every module can be imported, configs and tools are found, nothing asks for the laboratory, mmseg comes late."""
    wheel.extractall(tmp_path)
    code = (
        'import importlib, pathlib, pkgutil, runpy, sys\n'
        'import mimhd_mm\n'
        "assert 'mmseg' not in sys.modules\n"
        'from mimhd_mm.downstream.settings import shipped_settings\n'
        'from mimhd_mm.project import project_root\n'
        f'assert mimhd_mm.__file__.startswith({str(tmp_path)!r}), mimhd_mm.__file__\n'
        "names = [one.name for one in pkgutil.walk_packages(mimhd_mm.__path__, 'mimhd_mm.')]\n"
        'assert len(names) > 100\n'
        "sys.modules['lab'] = None  # importing it fails\n"
        'for name in names: importlib.import_module(name)\n'
        f"assert project_root() == pathlib.Path({str(tmp_path)!r}) / 'mimhd_mm' / '.mim'\n"
        'for settings in shipped_settings().values():\n'
        '    assert all(file.is_file() for tasks in settings.configs.values() for file in tasks.values())\n'
        "for tool in ('train.py', 'plan.py'):\n"
        "    sys.argv = [tool, '--help']\n"
        '    try:\n'
        "        runpy.run_path(str(project_root() / 'tools' / tool), run_name='__main__')\n"
        '    except SystemExit as end:\n'
        '        assert not end.code\n')
    environment = dict(os.environ, PYTHONPATH=str(tmp_path), PYTHONWARNINGS='ignore')
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [f'usage: {tool} ' in done.stdout for tool in ('train.py', 'plan.py')] == [True, True]


@pytest.mark.slow
def test_wheel_requires_neither_stack(wheel):
    """Two distributions of one import name must never meet, so both stacks are extras."""
    metadata = wheel.read(next(name for name in wheel.namelist() if name.endswith('/METADATA'))).decode()
    lines = [line.partition(': ')[2] for line in metadata.splitlines() if line.startswith('Requires-Dist')]
    assert lines
    assert not TWINS & {Requirement(line).name for line in lines if 'extra ==' not in line}
    for extra, prefix in (('onedl', 'onedl-'), ('openmmlab', '')):
        names = {Requirement(line).name for line in lines if f'extra == "{extra}"' in line.replace("'", '"')}
        assert names & TWINS == {f'{prefix}{name}' for name in STACK}


def test_default_stack_is_pinned():
    for requirement in requirements('run'):
        assert str(requirement.specifier).startswith('=='), requirement


def test_environment_holds_one_stack():
    names = {(distribution.metadata['Name'] or '').lower() for distribution in importlib.metadata.distributions()}
    assert not [name for name in TWINS if f'onedl-{name}' in names and name in names]


@pytest.mark.skipif(not MIM.is_dir(), reason='mimhd_mm is not installed, only on the path')
@pytest.mark.parametrize('name', ['_base_/default_runtime.py',
                                  'pretrain/mini/mae_vit-demo-p4_1xb64-coslr-30e_mnist-32px.py'])
def test_configs_are_found_through_the_package(tmp_path, name):
    (tmp_path / 'child.py').write_text(f"_base_ = 'mimhd_mm::{name}'\n")
    child, parent = Config.fromfile(tmp_path / 'child.py'), Config.fromfile(ROOT / 'configs' / name)
    assert without_scopes(child.to_dict()) == without_scopes(parent.to_dict())


def without_scopes(value):
    """A config's content without mmengine's marks of the package that each part came through."""
    if isinstance(value, dict):
        return {key: without_scopes(item) for key, item in value.items() if key != '_scope_'}
    return [without_scopes(item) for item in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.skipif(not MIM.is_dir(), reason='mimhd_mm is not installed, only on the path')
def test_a_config_inherited_through_the_package_trains(tmp_path, image_folder):
    (tmp_path / 'child.py').write_text(
        "_base_ = 'mimhd_mm::pretrain/mini/mae_vit-demo-p4_1xb64-coslr-30e_mnist-32px.py'\n"
        f"train_dataloader = dict(batch_size=16, num_workers=0, dataset=dict(\n"
        f"    data_root={str(image_folder)!r}, data_prefix=''))\n"
        'param_scheduler = []\ntrain_cfg = dict(max_epochs=1)\n')
    call('train.py', tmp_path / 'child.py', '--work-dir', tmp_path / 'run')
    assert (tmp_path / 'run' / 'epoch_1.pth').is_file()


@pytest.mark.skipif(not MIM.is_dir(), reason='mimhd_mm is not installed, only on the path')
def test_what_a_config_inherits_through_the_package_can_be_built(tmp_path):
    """mmengine would look for mmpretrain's classes in our own scope."""
    (tmp_path / 'child.py').write_text(
        "_base_ = 'mimhd_mm::pretrain/mini/mae_vit-demo-p4_1xb64-coslr-30e_mnist-32px.py'\n"
        "model = dict(backbone=dict(mask_ratio=0.5))\n")
    model = MODELS.build(Config.fromfile(tmp_path / 'child.py').model)
    assert type(model).__name__ == 'MAE' and model.backbone.mask_ratio == 0.5


def test_model_index():
    from modelindex.load_model_index import load as load_index
    index = load_index(str(ROOT / 'model-index.yml'))
    index.build_models_with_collections()
    assert index.check(silent=True) == []
    names = [model.name for model in index.models]
    assert len(names) == len(set(names))
    entries = [model for path in load(ROOT / 'model-index.yml')['Import'] for model in load(ROOT / path)['Models']]
    for model in entries:
        path, metadata = ROOT / model['Config'], model['Metadata']
        assert path.is_file() and path.stem == model['Name']
        gpus, batch = map(int, re.search(r'_(\d+)xb(\d+)-', path.stem).groups())
        length = metadata.get('Epochs') or metadata['Iterations']
        assert metadata['Batch Size'] == gpus * batch
        assert re.search(rf'-{length}e_|[-_]{length}_|-{length // 1000}k_', path.stem), path.stem
        assert model['Results'] is None  # nothing was measured at these settings yet
    configs = {path.stem for kind in ('pretrain', 'finetune', 'segmentation')
               for path in (ROOT / 'configs' / kind).rglob('*.py')}
    assert configs == {model['Name'] for model in entries}


@pytest.mark.parametrize('low, high', [('98.0', '99.0'), ('0.0.1', '0.0.2')])
def test_version_outside_the_range(monkeypatch, low, high):
    monkeypatch.setitem(compat.VERSIONS, 'mmengine', (low, high))
    with pytest.raises(ImportError, match=rf'mmengine>={low},<{high} but found \d.*requirements/run.txt'):
        compat.check_versions()


@pytest.mark.slow
@pytest.mark.skipif(os.name == 'nt', reason='bash scripts')
@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse(script):
    subprocess.run(['bash', '-n', str(script)], check=True)
    assert 'set -euo pipefail' in script.read_text()
    assert os.access(script, os.X_OK)


@pytest.mark.slow
@pytest.mark.skipif(os.name == 'nt', reason='bash scripts')
@pytest.mark.parametrize('name', ['dist_train', 'dist_test', 'slurm_train', 'slurm_test'])
def test_scripts_say_how_they_are_used(name):
    done = subprocess.run(['bash', str(ROOT / 'tools' / f'{name}.sh'), 'config.py'], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f'usage: tools/{name}.sh ') and done.stderr.count('\n') == 1


@pytest.mark.slow
@pytest.mark.skipif(os.name == 'nt', reason='bash scripts')
@pytest.mark.parametrize('name, arguments, passed_on', [
    ('dist_train', ['a config.py', '2', '--cfg-options', 'x="[1, 2]"'],
     ['a config.py', '--launcher', 'pytorch', '--cfg-options', 'x="[1, 2]"']),
    ('dist_test', ['c.py', 'my model.pth', '2', '--out', 'an output.pkl'],
     ['c.py', 'my model.pth', '--launcher', 'pytorch', '--out', 'an output.pkl']),
    ('slurm_train', ['gpu', 'my job', 'c.py', 'a folder', '--amp'],
     ['c.py', '--work-dir', 'a folder', '--launcher', 'slurm', '--amp']),
    ('slurm_test', ['gpu', 'my job', 'c.py', 'm.pth', '--out', 'an output.pkl'],
     ['c.py', 'm.pth', '--launcher', 'slurm', '--out', 'an output.pkl'])])
def test_scripts_pass_arguments_on_unchanged(tmp_path, name, arguments, passed_on):
    """With programs in place of python and srun that write down what they are given."""
    for program in ('recorder', 'srun'):
        (tmp_path / program).write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
        (tmp_path / program).chmod(0o755)
    done = subprocess.run(
        ['bash', str(ROOT / 'tools' / f'{name}.sh'), *arguments], capture_output=True, text=True, check=True,
        env=dict(os.environ, PYTHON='recorder', SRUN_ARGS='--qos high', PATH=f'{tmp_path}:{os.environ["PATH"]}'))
    words = done.stdout.splitlines()
    assert words[-len(passed_on):] == passed_on
    assert words[-len(passed_on) - 1].endswith(f'{name.split("_")[1]}.py')
    if name.startswith('slurm'):
        assert '--job-name=my job' in words and words[words.index('--qos') + 1] == 'high'
    else:
        assert words[words.index('--nproc_per_node') + 1] == '2'


@pytest.fixture
def original_stack(tmp_path):
    """``tools/setup_openmmlab.sh`` in a repository of its own, for an environment whose python only notes its calls."""
    root, environment = tmp_path / 'a repository', tmp_path / 'an environment'
    for name in ('tools/setup_openmmlab.sh', 'tools/setup_common.sh', 'pyproject.toml', 'setup.py',
                 'mimhd_mm/version.py'):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(ROOT / 'requirements', root / 'requirements')
    (root / 'mimhd_mm' / '.mim' / 'configs').mkdir(parents=True)  # what the last step links
    (environment / 'bin').mkdir(parents=True)
    (environment / 'pyvenv.cfg').touch()
    python = environment / 'bin' / 'python'
    python.write_text(f'#!/usr/bin/env bash\n[ "$1" = -c ] || [ "$4" = "" ] || echo "${{@:3}}" >> "{tmp_path}/calls"\n'
                      f'case "$*" in *"$(cat "{tmp_path}/broken" 2>/dev/null || echo nothing)") exit 9 ;; esac\n')
    python.chmod(0o755)
    (tmp_path / 'calls').touch()

    def run(folder='an environment'):
        """The exit status, both outputs, and what pip was asked for."""
        done = subprocess.run(['bash', root / 'tools' / 'setup_openmmlab.sh', folder], cwd=tmp_path, text=True,
                              capture_output=True, env=dict(os.environ, PYTHON=''))
        calls = (tmp_path / 'calls').read_text().replace('--disable-pip-version-check ', '').splitlines()
        (tmp_path / 'calls').write_text('')
        return done.returncode, done.stdout + done.stderr, calls
    return run


@pytest.mark.slow
@pytest.mark.skipif(os.name == 'nt', reason='bash scripts')
def test_the_original_stack_is_installed_in_steps_that_are_taken_once(tmp_path, original_stack):
    stack = 'requirements/openmmlab.txt'
    first = [str(requirement) for requirement in requirements('openmmlab')
             if requirement.name in ('torch', 'torchvision', 'numpy', 'setuptools')]
    steps = [f'install {" ".join(first)} wheel', f'install --no-build-isolation -r {stack}',
             f'install -c {stack} -r requirements/tests.txt', f'install -c {stack} -r requirements/demo.txt',
             f'install --no-build-isolation --no-deps -e {tmp_path}/a repository']
    assert len(first) == 4
    (tmp_path / 'broken').write_text('requirements/demo.txt')
    assert original_stack()[::2] == (9, steps[:4])
    (tmp_path / 'broken').unlink()
    status, output, calls = original_stack()
    assert (status, calls) == (0, steps[3:])  # what ended well is not done again
    command = f"cd '{tmp_path}/a repository' && '{tmp_path}/an environment/bin/python' -m pytest tests"
    assert output.splitlines()[-1].endswith(command)
    assert original_stack()[::2] == (0, [])
    with open(tmp_path / 'a repository' / stack, 'a') as file:
        file.write('# changed\n')
    assert original_stack()[::2] == (0, [*steps[:2], steps[4]])


@pytest.mark.slow
@pytest.mark.skipif(os.name == 'nt', reason='bash scripts')
def test_the_original_stack_never_joins_the_other_nor_clears_a_folder(tmp_path, original_stack):
    (tmp_path / 'an environment' / 'lib' / 'python3.11' / 'site-packages' / 'onedl_mmcv').mkdir(parents=True)
    (tmp_path / 'photographs').mkdir()
    (tmp_path / 'photographs' / '1.png').touch()
    for folder, said in (('an environment', 'holds the default stack'), ('photographs', 'holds other files'),
                         ('--help', 'usage: tools/setup_openmmlab.sh [FOLDER]')):
        status, output, calls = original_stack(folder)
        assert (status, calls, output.count('\n')) == (1, [], 1) and said in output
    assert (tmp_path / 'photographs' / '1.png').is_file()
