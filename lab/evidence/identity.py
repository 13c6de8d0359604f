"""Hashes that tell settings and files apart."""
import functools
import hashlib
import json
from pathlib import Path

from mimhd_mm.weights.reading import sha256_of


@functools.cache
def file_hash(path: Path) -> str:
    """Hash of a file, computed once."""
    return sha256_of(path)


def short_hash(content) -> str:
    """Ten hexadecimal digits of what can be written as JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:10]
