"""Packaging of mimhd_mm; everything pip needs to know is here and in ``requirements/``.

OpenMMLab's tools look for a package's configs in a folder ``.mim`` inside it. The originals stay at the top of the
repository, where its users read and edit them: a development install links to them, a wheel holds copies.
"""
import os
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.develop import develop

ROOT = Path(__file__).resolve().parent
PACKAGE = 'mimhd_mm'
MIM_FILES = ('configs', 'tools', 'model-index.yml')
DEMO = ('quickstart.*', 'digit_scenes.py')  # of `tools`, run from a clone


def requirements(name: str) -> list:
    """The requirement lines of ``requirements/<name>.txt``, without comments."""
    lines = (line.split('#')[0].strip() for line in (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines())
    return [line for line in lines if line]


def link_mim_files() -> None:
    """Link ``mimhd_mm/.mim/*`` to the files at the top; a file system without links gets copies."""
    folder = ROOT / PACKAGE / '.mim'
    remove(folder)
    folder.mkdir()
    for name in MIM_FILES:
        try:
            (folder / name).symlink_to(os.path.join('..', '..', name), target_is_directory=(ROOT / name).is_dir())
        except OSError:  # Windows without the right to make links
            copy(ROOT / name, folder / name)


def copy_mim_files(package_folder: Path) -> None:
    """Copy the files at the top into ``package_folder/.mim``, in place of whatever is there."""
    folder = package_folder / '.mim'
    remove(folder)
    folder.mkdir(parents=True)
    for name in MIM_FILES:
        copy(ROOT / name, folder / name)


def copy(source: Path, target: Path) -> None:
    """Copy a file or a folder, the latter without caches and without the demo."""
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns('__pycache__', '*.py[cod]', *DEMO))
    else:
        shutil.copy2(source, target)


def remove(path: Path) -> None:
    """Remove a link or a folder, if it is there."""
    if path.is_symlink():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)


class BuildPy(build_py):
    """Copies into what is built, never into the source tree; links where the install is editable (PEP 660)."""

    def run(self) -> None:
        super().run()
        if getattr(self, 'editable_mode', False):
            link_mim_files()
        else:
            copy_mim_files(Path(self.build_lib) / PACKAGE)


class Develop(develop):
    """The same for ``pip install -e`` of a pip that still runs ``setup.py develop``."""

    def run(self) -> None:
        link_mim_files()
        super().run()


def read_version() -> str:
    """The version, without importing the package (which imports torch)."""
    scope = {}
    exec((ROOT / PACKAGE / 'version.py').read_text(), scope)
    return scope['__version__']


readme = ROOT / 'README.md'
setup(
    name=PACKAGE,
    version=read_version(),
    description='MIM-HD for OpenMMLab: distil a large masked autoencoder into a small vision transformer',
    long_description=readme.read_text(encoding='utf-8') if readme.is_file() else '',
    long_description_content_type='text/markdown',
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    include_package_data=False,
    package_data={f'{PACKAGE}.visualization.report': ['*.html', '*.css', '*.js']},
    python_requires='>=3.10',
    # OpenMMLab's packages exist as two distributions of one import name, the original and the continued (onedl-*), and
    # one environment must never hold both: so they are extras, and what is required is what both stacks share.
    install_requires=requirements('common'),
    extras_require={
        'onedl': requirements('run'),
        'openmmlab': requirements('openmmlab'),
        'tests': requirements('tests'),
        'demo': requirements('demo'),
        'export': requirements('export'),
        'report': requirements('report'),
    },
    cmdclass={'build_py': BuildPy, 'develop': Develop},
    zip_safe=False,
)
