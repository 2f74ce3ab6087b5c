"""Files that appear as a whole, and their checksums."""

import contextlib
import secrets
import zlib
from collections.abc import Iterator
from pathlib import Path


def unfinished(path: Path) -> Path:
    """A name beside `path`, of no other process, for what is to be renamed to it when whole."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.unfinished")


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Gives a name to write to, which becomes `path` at the end: an interruption leaves what was
    there before, and an error nothing else."""
    partial = unfinished(path)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def crc32(path: Path) -> int:
    """CRC-32 of a file's bytes."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc
