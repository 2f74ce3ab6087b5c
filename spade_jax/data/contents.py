"""Digests of what files hold: by these, and not by names, lengths or times, data is told apart."""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from etils import epath

from spade_jax.data.config import DataError

_BLOCK = 1 << 20
_READERS = 8


def digest_files(paths: Iterable[str]) -> dict[str, str]:
    """A digest of the contents of each file, by path; several are read at a time.

    Raises:
      DataError: a file cannot be read.
    """
    paths = list(paths)
    with ThreadPoolExecutor(_READERS) as pool:
        return dict(zip(paths, pool.map(_digest, paths)))


def _digest(path: str) -> str:
    digest = hashlib.sha256()
    try:
        with epath.Path(path).open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    return digest.hexdigest()[:16]
