"""Write checkpoints atomically with a hash beside them, and find the newest whole checkpoint of a folder.

A checkpoint ``epoch_3.pth`` has ``epoch_3.pth.sha256`` beside it, a line that ``sha256sum -c`` reads. Every file is
written under a temporary name in the same folder, synchronised with the disk, and renamed. After a kill, a power cut
or a full disk there is either the old file or the new one. While a checkpoint is replaced, the hash file holds the
line of the new file above that of the old one, so the checkpoint always matches one of them.
"""
import logging
import pickle
import re
import shutil
import zipfile
from hashlib import sha256
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import print_log

from ..compat import load_checkpoint_safely
from ..errors import UserInputError
from .reading import sha256_of
from .writing import DISK_FULL_ERRORS, write_whole

#: name of the checkpoint that ``InterruptHook`` writes
INTERRUPTED = 'interrupted_iter_{}.pth'
CHECKPOINT = re.compile(r'(epoch|iter|interrupted_iter)_\d+\.pth')


def hash_file(path: Path) -> Path:
    """The file that holds a checkpoint's hash."""
    return path.with_name(f'{path.name}.sha256')


def noted_hashes(path: Path) -> list[str]:
    """The hashes that a checkpoint may have; none if it has no hash file."""
    note = hash_file(path)
    return [line.split()[0] for line in note.read_text().splitlines() if line.strip()] if note.is_file() else []


def write_checkpoint(path: Path, content: bytes) -> None:
    """Write a checkpoint and its hash.

    Raises:
        UserInputError: If the disk is full. Earlier checkpoints do not change.
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
            f'{free / 2**20:.1f} MiB are free); earlier checkpoints are intact: free some space, then use --resume.'
        ) from error


@register_backend('mimhd_mm.atomic')
class AtomicBackend(LocalBackend):
    """mmengine's backend for local files, which writes through :func:`write_checkpoint`.

    mmengine's own backend writes under the final name, so a kill leaves a partly written file there.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a checkpoint and its hash."""
        write_checkpoint(Path(filepath), obj)

    def remove(self, filepath: str | Path) -> None:
        """Remove a checkpoint, then its hash; a hash without a checkpoint is harmless."""
        super().remove(filepath)
        hash_file(Path(filepath)).unlink(missing_ok=True)


def damage(path: Path) -> str | None:
    """Describe what is wrong with a checkpoint; None if it is whole.

    The file is compared with its hash. A checkpoint without one, such as mmengine's hook writes, is read completely.
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


def checkpoints_of(folder: Path) -> list[Path]:
    """The checkpoints of a run, last written first, without those of best scores, which cannot be resumed.

    Args:
        folder (Path): The work dir. Where ``last_checkpoint`` names a file in another folder, that folder is meant.
    """
    note, name, folder = folder / 'last_checkpoint', '', Path(folder)
    if note.is_file():
        noted = Path(note.read_text(errors='replace').strip())
        name = noted.name
        if noted.is_file():
            folder = noted.parent
    like = re.compile(re.escape(re.sub(r'\d+(?=\D*$)', '#', name)).replace(r'\#', r'\d+'))  # names of the user's choice
    found = [path for path in folder.glob('*') if path.is_file() and not path.name.startswith('best_') and (
        CHECKPOINT.fullmatch(path.name) or name and like.fullmatch(path.name))]
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, len(path.name), path.name), reverse=True)


def newest_checkpoint(folder: str | Path) -> Path | None:
    """The newest whole checkpoint; damaged ones that are skipped are named in a warning."""
    for path in checkpoints_of(Path(folder)):
        problem = damage(path)
        if problem is None:
            return path
        print_log(f'Skipped the checkpoint {str(path)!r}: {problem}.', logger='current', level=logging.WARNING)
    return None


def check_checkpoint(path: str | Path) -> None:
    """Check that a given checkpoint is whole; files behind a URL are not checked.

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
