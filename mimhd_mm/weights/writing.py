"""Write files atomically."""
import errno
import os
import re
from pathlib import Path

#: name of a file while :func:`write_whole` writes it
TEMPORARY = re.compile(r'.+\.\d+\.tmp')
#: no space, over the quota, over the limit on the size of a file
DISK_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file atomically: after a crash there is the old content or the new one.

    Raises:
        OSError: If it cannot be written. The old file is kept and no partly written file is left.
    """
    path = Path(path)
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    try:
        with open(temporary, 'wb') as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _synchronise(path.parent)


def _synchronise(folder: Path) -> None:
    """Synchronise the names in a folder with the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems do not synchronise folders
        pass
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> list[str]:
    """Remove partly written files of a killed process; return their names."""
    names = [path.name for path in folder.glob('*.tmp') if TEMPORARY.fullmatch(path.name)]
    for name in names:
        (folder / name).unlink(missing_ok=True)
    return names
