"""Files of checkpoints: written whole or not at all, with a hash beside them; the newest of a folder that is whole.

A checkpoint ``epoch_3.pth`` has ``epoch_3.pth.sha256`` beside it, a line that ``sha256sum -c`` reads. Every file is
written under a temporary name in the same folder, synchronised with the disk, and renamed: after a kill, a power cut
or a full disk there is the old file or the new one. While a checkpoint is replaced the line of the new one stands
above that of the old one, so that at every moment the file has one of the hashes.
"""
import errno
import logging
import os
import pickle
import re
import shutil
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import List, Optional, Union

from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import print_log

from ..compat import load_checkpoint_safely
from ..errors import UserInputError
from ..models.mae_files import sha256_of

#: what :func:`write_whole` calls a file while it writes it
TEMPORARY = re.compile(r'.+\.\d+\.tmp')
#: of a run that was told to stop; ``mimhd_mm.engine.hooks.InterruptHook`` writes it
INTERRUPTED = 'interrupted_iter_{}.pth'
CHECKPOINT = re.compile(r'(epoch|iter|interrupted_iter)_\d+\.pth')
#: no space, over the quota, over the limit on the size of a file
DISK_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all, whatever happens to the process, the machine or the disk.

    Raises:
        OSError: If it cannot be written; what was there is still there, and nothing half-written is left.
    """
    path = Path(path)
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    try:
        with open(temporary, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _synchronise(path.parent)


def _synchronise(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems do not synchronise folders
        pass
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> List[str]:
    """Remove what a killed process left half-written; returns the names."""
    names = [path.name for path in folder.glob('*.tmp') if TEMPORARY.fullmatch(path.name)]
    for name in names:
        (folder / name).unlink(missing_ok=True)
    return names


def hash_file(path: Path) -> Path:
    """Where a checkpoint's hash stands."""
    return path.with_name(f'{path.name}.sha256')


def noted_hashes(path: Path) -> List[str]:
    """The hashes that a checkpoint may have; none where it has no file of hashes."""
    note = hash_file(path)
    return [line.split()[0] for line in note.read_text().splitlines() if line.strip()] if note.is_file() else []


def write_checkpoint(path: Path, content: bytes) -> None:
    """Write a checkpoint and its hash.

    Raises:
        UserInputError: If the disk is full; earlier checkpoints are as they were.
        OSError: If it cannot be written for another reason.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new, old = sha256(content).hexdigest(), noted_hashes(path) if path.is_file() else []
    line, note = f'{new}  {path.name}\n', hash_file(path)
    try:
        write_whole(note, (line + ''.join(f'{value}  {path.name}\n' for value in old)).encode())
        write_whole(path, content)
        if old:
            write_whole(note, line.encode())
    except OSError as error:
        if not path.is_file():
            note.unlink(missing_ok=True)
        if error.errno not in DISK_FULL_ERRORS:
            raise
        free = shutil.disk_usage(path.parent).free
        raise UserInputError(
            f'The checkpoint {str(path)!r} of {len(content) / 2**20:.1f} MiB could not be written ({error.strerror}; '
            f'{free / 2**20:.1f} MiB are free); earlier checkpoints are intact: make room and go on with --resume.'
        ) from error


@register_backend('mimhd_mm.atomic')
class AtomicBackend(LocalBackend):
    """mmengine's backend for local files, which writes through :func:`write_checkpoint`.

    mmengine's own opens the file for writing under its final name: a kill at that moment leaves a part of it there.
    """

    def put(self, obj: bytes, filepath: Union[str, Path]) -> None:
        """Write a checkpoint and its hash."""
        write_checkpoint(Path(filepath), obj)

    def remove(self, filepath: Union[str, Path]) -> None:
        """Remove a checkpoint and its hash, in this order: a hash alone harms nothing."""
        super().remove(filepath)
        hash_file(Path(filepath)).unlink(missing_ok=True)


def damage(path: Path) -> Optional[str]:
    """What is wrong with a checkpoint, in words; None if it is whole.

    By its hash where one was noted. Without, as mmengine's own hook writes it, by reading all of it.
    """
    try:
        hashes = noted_hashes(path)
        if hashes:
            return None if sha256_of(path) in hashes else f'its sha256 is not the one in {hash_file(path).name!r}'
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()
            if broken:
                return f'its part {broken!r} is damaged'
        saved = load_checkpoint_safely(path)
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError, NotImplementedError,
            pickle.UnpicklingError, zipfile.BadZipFile) as error:
        return f'it cannot be read ({type(error).__name__}: {(str(error).splitlines() or [""])[0]})'
    return None if isinstance(saved, dict) and 'meta' in saved else 'it holds no state of a training'


def checkpoints_of(folder: Path) -> List[Path]:
    """The checkpoints of a run, the last written first; not those of its best scores, which cannot be resumed.

    Args:
        folder (Path): The work dir. Where ``last_checkpoint`` names a file in another folder, that folder is meant.
    """
    note, name, folder = folder / 'last_checkpoint', '', Path(folder)
    if note.is_file():
        noted = Path(note.read_text(errors='replace').strip())
        name = noted.name
        if noted.is_file():
            folder = noted.parent
    like = re.compile(re.escape(re.sub(r'\d+(?=\D*$)', '#', name)).replace(r'\#', r'\d+'))  # of a name of one's own
    found = [path for path in folder.glob('*') if path.is_file() and not path.name.startswith('best_') and (
        CHECKPOINT.fullmatch(path.name) or name and like.fullmatch(path.name))]
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, len(path.name), path.name), reverse=True)


def newest_checkpoint(folder: Union[str, Path]) -> Optional[Path]:
    """The last checkpoint that was written and is whole; those that are skipped for it are named in a warning."""
    for path in checkpoints_of(Path(folder)):
        problem = damage(path)
        if problem is None:
            return path
        print_log(f'Skipped the checkpoint {str(path)!r}: {problem}.', logger='current', level=logging.WARNING)
    return None


def check_checkpoint(path: Union[str, Path]) -> None:
    """See that a checkpoint that was asked for is whole; what is no local file is not looked at.

    Raises:
        UserInputError: If it is missing or damaged, with the newest one beside it that is whole.
    """
    if '://' in str(path):
        return
    path = Path(path)
    problem = damage(path) if path.is_file() else 'there is no such file'
    if problem is None:
        return
    other = newest_checkpoint(path.parent) if path.parent.is_dir() else None
    advice = f'the newest one that is whole is {str(other)!r}' if other else 'there is none beside it that is whole'
    raise UserInputError(f'Cannot resume from {str(path)!r}: {problem}; {advice}.')
