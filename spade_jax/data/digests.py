"""Digests, by which data is told apart: of what files hold, not of names, lengths or times."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from etils import epath

from spade_jax.data.config import DataError

_BLOCK = 1 << 20
_READERS = 8


def digest(*definition: Any) -> str:
    """A name for a definition made of dataclasses, numbers and strings: equal ones share it."""
    text = json.dumps(definition, sort_keys=True, default=dataclasses.asdict)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def place(contents: Iterable[bytes], seed: int) -> float:
    """A place from 0 up to 1 that nothing decides but what a row holds and a seed.

    What is below a share is held out: a row stays where it is when others come or the order
    changes, and equal rows are on the same side.
    """
    return int.from_bytes(digest_row(contents, 8, key=seed.to_bytes(8))) / 2**64


def digest_row(contents: Iterable[bytes], size: int, key: bytes = b"") -> bytes:
    """So many bytes that tell a row from others: of what it holds, and of where a part ends."""
    found = hashlib.blake2b(digest_size=size, key=key)
    for data in contents:
        found.update(len(data).to_bytes(8) + data)
    return found.digest()


def digest_files(paths: Iterable[str]) -> dict[str, str]:
    """A digest of the contents of each file, by path; several are read at a time.

    Raises:
      DataError: a file cannot be read.
    """
    paths = list(paths)
    with ThreadPoolExecutor(_READERS) as pool:
        return dict(zip(paths, pool.map(_digest_file, paths)))


def _digest_file(path: str) -> str:
    contents = hashlib.sha256()
    try:
        with epath.Path(path).open("rb") as file:
            while block := file.read(_BLOCK):
                contents.update(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    return contents.hexdigest()[:16]
