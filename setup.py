"""The one step of packaging that ``pyproject.toml`` cannot describe: configs and tools go into ``mimhd_mm/.mim``.

OpenMMLab's tools look for a package's configs in a folder ``.mim`` inside it. The originals stay at the top of the
repository, where its users read and edit them: a development install links to them, a wheel holds copies.
"""
import os
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
PACKAGE = 'mimhd_mm'
MIM_FILES = ('configs', 'tools', 'model-index.yml')
DEMO = ('quickstart.*', 'digit_scenes.py')  # of `tools`, run from a clone


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
    """Copy into what is built, never into the source tree; link where the install is editable (PEP 660)."""

    def run(self) -> None:
        super().run()
        if getattr(self, 'editable_mode', False):
            link_mim_files()
        else:
            copy_mim_files(Path(self.build_lib) / PACKAGE)


setup(cmdclass={'build_py': BuildPy})
