"""Safe loaders for mmengine: ``--resume``, ``load_from`` and ``init_cfg`` never execute code from a file.

mmengine's own loaders try ``weights_only=True`` (or, before 0.10.12 and from URLs, do not) and unpickle whatever is in
the file when that fails. :func:`safe_loading` puts the loaders of this module in their places for as long as it lasts:
while our tools and our Runners run, and where our functions initialise a model. Importing changes nothing.
"""
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import torch
from mmengine.dist import barrier, get_rank
from mmengine.runner import CheckpointLoader

from ...errors import UserInputError
from ...weights.reading import read_content

OTHERS = ('modelzoo://', 'torchvision://', 'open-mmlab://', 'openmmlab://', 'mmcls://', 'pavi://', r'(\S+\:)?s3://',
          r'(\S+\:)?petrel://')


def load_from_local(filename: str, map_location: Any = None) -> dict:
    """Load a ``.pth`` or ``.safetensors`` file of tensors and plain values.

    Args:
        filename (str): A path.
        map_location: As in ``torch.load``.

    Raises:
        UserInputError: If it is missing, damaged, no state dict, or holds other objects; no code in it is executed.
    """
    content = read_content(Path(filename).expanduser(), map_location)
    if not isinstance(content, dict):
        raise UserInputError(f'{filename!r} holds a {type(content).__name__} and no state dict; give a checkpoint.')
    return content


def load_from_http(filename: str, map_location: Any = None, model_dir: str | None = None) -> dict:
    """Download a file unless it is there already, then load it with :func:`load_from_local`.

    Args:
        filename (str): A URL.
        map_location: As in ``torch.load``.
        model_dir (str, optional): Folder for the download. Defaults to None: ``checkpoints`` in ``torch.hub``'s folder,
            as in mmengine.

    Raises:
        UserInputError: If the URL names no file, or for what :func:`load_from_local` refuses.
    """
    name = Path(unquote(urlparse(filename).path)).name  # the URL cannot choose the folder
    if not name:
        raise UserInputError(f'The URL {filename!r} names no file; give that of a checkpoint.')
    path = Path(model_dir or Path(torch.hub.get_dir(), 'checkpoints'), name)
    if get_rank() != 0:
        barrier()  # the first process downloads; others only if they do not share its disk
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(filename, str(path), progress=False)
    if get_rank() == 0:
        barrier()
    return load_from_local(str(path), map_location)


def load_from_elsewhere(filename: str, map_location: Any = None) -> dict:
    """Refuse sources that mmengine loads by unpickling.

    Raises:
        UserInputError: Always.
    """
    raise UserInputError(f'{filename!r} is not loaded, because it could not be done without executing what it may '
                         f'hold; download the file and give its path, or its https address.')


#: prefixes of addresses -> their loader
SAFE_LOADERS = {'': load_from_local, ('http://', 'https://'): load_from_http, OTHERS: load_from_elsewhere}


@contextmanager
def safe_loading() -> Iterator[None]:
    """Make everything that loads through mmengine inside use the loaders of this module.

    Afterwards mmengine has the loaders that it had before. Blocks may nest. A loader that another package registered
    for a prefix of its own stays in use.
    """
    before = CheckpointLoader._schemes
    CheckpointLoader._schemes = dict(before)
    try:
        for prefixes, loader in SAFE_LOADERS.items():
            CheckpointLoader.register_scheme(prefixes, loader, force=True)
        yield
    finally:
        CheckpointLoader._schemes = before
