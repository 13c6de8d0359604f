"""Where the files of this project are, and what a number is computed with: device, versions, commit."""
import importlib
import platform
import re
import subprocess
from pathlib import Path

import torch

PACKAGES = ('torch', 'mmengine', 'mmcv', 'mmpretrain', 'mmseg')


def project_root() -> Path:
    """The folder that holds ``tools`` and ``configs``: the repository, or what an installation keeps of it."""
    repository = Path(__file__).resolve().parents[1]
    return repository if (repository / 'tools' / 'train.py').is_file() else repository / 'mimhd_mm' / '.mim'


def environment() -> dict[str, str]:
    """Device, versions and commit that a number is computed with."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_model()
    return dict(device=device, versions=', '.join(f'{name} {version_of(name)}' for name in PACKAGES), commit=commit())


def cpu_model() -> str:
    """The name of the processor, as far as the system tells."""
    info = Path('/proc/cpuinfo')
    found = re.search(r'^model name\s*:\s*(.+)$', info.read_text(), re.M) if info.is_file() else None
    return found[1] if found else platform.processor() or platform.machine()


def version_of(package: str) -> str:
    """The version of a package, ``'not installed'`` without it."""
    try:
        return importlib.import_module(package).__version__
    except ImportError:
        return 'not installed'


def commit() -> str:
    """The commit of this project, ``+ changes`` where files outside docs/ differ from it, ``'no git'`` without one."""
    root = project_root()
    try:
        head, changes = (subprocess.run(['git', '-C', str(root), *arguments], capture_output=True, text=True,
                                        check=True).stdout.strip()
                         for arguments in (('rev-parse', '--short=12', 'HEAD'),
                                              ('status', '--porcelain', '--untracked-files=no', '--', '.',
                                               ':(exclude)docs')))
    except (OSError, subprocess.CalledProcessError):
        return 'no git'
    return head + (' + changes' if changes else '') if (root / '.git').exists() else 'no git'
