"""Files that harm whoever loads them carelessly: made here, with a payload that leaves a mark."""
import collections
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.logging.history_buffer import HistoryBuffer

#: kinds whose loading would run code if anything in them were unpickled
PAYLOADS = ('pickle payload', 'payload of the old format', 'payload beside good weights', 'bare pickle',
            'payload in an optimiser state', 'getattr walk')
#: kinds that hold code and are no pickles by their name or content
OTHER_PAYLOADS = ('safetensors that is a pickle', 'config as a checkpoint')


class Payload:
    """Makes a file when it is unpickled.

    Args:
        mark (str | Path): The file.
        through (callable, optional): What unpickling calls. Defaults to ``os.system``.
    """

    def __init__(self, mark: str | Path, through: Callable | None = None) -> None:
        self.mark, self.through = str(mark), through

    def __reduce__(self):
        if self.through is not None:
            return self.through, (f'open({self.mark!r}, "w").close()',)
        return os.system, (f'touch {self.mark!r}',)


class GetattrWalk:
    """Asks ``getattr``, which checkpoints of mmengine need, for what leads to everything else."""

    def __reduce__(self):
        return getattr, (HistoryBuffer, '__init__')


def kinds() -> dict[str, Callable[[Path, Path], object]]:
    """All kinds by name: what writes one to a path, given the file that its payload would make."""
    return {
        'pickle payload': lambda path, mark: torch.save(dict(state_dict=Payload(mark)), path),
        'payload of the old format': lambda path, mark: torch.save(
            dict(state_dict=Payload(mark, exec)), path, _use_new_zipfile_serialization=False),
        'payload beside good weights': lambda path, mark: torch.save(
            dict(state_dict=good_tensors(), meta=dict(note=Payload(mark, eval))), path),
        'bare pickle': lambda path, mark: path.write_bytes(pickle.dumps(dict(state_dict=Payload(mark)))),
        'payload in an optimiser state': lambda path, mark: torch.save(
            dict(state_dict=good_tensors(), meta=dict(epoch=1, iter=1), optimizer=dict(state=Payload(mark, exec))),
            path),
        'getattr walk': lambda path, mark: torch.save(dict(state_dict=good_tensors(), walk=GetattrWalk()), path),
        'zip bomb': lambda path, mark: _bomb(path),
        'tensor of 40 TB by a stride of 0': lambda path, mark: torch.save(
            dict(state_dict=dict(good_tensors(), a=torch.zeros(1).expand(10 ** 13))), path),
        'storage larger than its bytes': lambda path, mark: _larger_storage(path),
        '100,000 nested lists': lambda path, mark: _nested(path),
        'safetensors with a header of 2^62 bytes': lambda path, mark: path.write_bytes(
            struct.pack('<Q', 2 ** 62) + b'{}' * 50),
        'safetensors that point beyond the end': lambda path, mark: _safetensors(path, [0, 2 ** 40]),
        'safetensors that is a pickle': lambda path, mark: path.write_bytes(pickle.dumps(Payload(mark))),
        'config as a checkpoint': lambda path, mark: path.write_text(
            f'open({str(mark)!r}, "w").close()\nmodel = dict()\n'),
        'half a checkpoint': lambda path, mark: _half(path),
        'empty file': lambda path, mark: path.write_bytes(b''),
    }


def write_kinds(folder: str | Path, names: list[str] | None = None) -> dict[str, Path]:
    """Write one of each kind, or of those that are named, into a folder.

    The payload of ``<file>`` would make ``<file>.ran`` beside it.

    Returns:
        dict: Name -> path.
    """
    paths = {}
    for number, (name, write) in enumerate(kinds().items()):
        if names is None or name in names:
            path = Path(folder) / f'hostile_{number}{".safetensors" if name.startswith("safetensors") else ".pth"}'
            write(path, path.with_name(path.name + '.ran'))
            paths[name] = path
    return paths


def good_tensors() -> dict:
    """A state dict of a few numbers."""
    return {'backbone.cls_token': torch.zeros(1, 1, 4), 'a': torch.arange(4.)}


def _saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _rewritten(path: Path, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> None:
    """A checkpoint whose parts went through ``change``."""
    with zipfile.ZipFile(io.BytesIO(_saved(dict(state_dict=dict(a=torch.arange(4.)))))) as source:
        with zipfile.ZipFile(path, 'w', compression) as target:
            for entry in source.infolist():
                target.writestr(entry.filename, change(entry.filename, source.read(entry)))


def _bomb(path: Path) -> None:
    """A quarter of a megabyte that unpacks to 256."""
    _rewritten(path, lambda name, data: bytes(2 ** 28) if name.endswith('data/0') else data, zipfile.ZIP_DEFLATED)


def _larger_storage(path: Path) -> None:
    """A tensor whose metadata claims 10^9 numbers while four are stored."""
    number = b'J' + struct.pack('<i', 10 ** 9)

    def change(name: str, data: bytes) -> bytes:
        if name.endswith('data.pkl'):
            # the number of elements follows the storage's device, and the tensor's shape its offset
            start = data.index(b'cpu')
            data = data[:start] + data[start:].replace(b'K\x04', number)
        return data
    _rewritten(path, change)


def _nested(path: Path) -> None:
    content = b'\x80\x02' + b'](' * 100_000 + b'K\x01' + b'e' * 100_000 + b'.'
    _rewritten(path, lambda name, data: content if name.endswith('data.pkl') else data)


def _safetensors(path: Path, offsets: list) -> None:
    header = json.dumps(dict(a=dict(dtype='F32', shape=[2 ** 38], data_offsets=offsets))).encode()
    path.write_bytes(struct.pack('<Q', len(header)) + header + bytes(16))


def _half(path: Path) -> None:
    content = _saved(collections.OrderedDict(a=torch.zeros(1000)))
    path.write_bytes(content[:len(content) // 2])
