"""Files that appear as a whole, what a person names to be written, and checksums."""

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

from spade_jax.config import ConfigError


def unfinished(path: Path) -> Path:
    """A name beside `path`, of no other process, for what is to be renamed to it when whole."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.unfinished")


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Gives a name to write to, which becomes `path` at the end: an interruption leaves what was
    there before, and an error nothing else."""
    partial = unfinished(path)
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        try_lock(descriptor)  # For as long as this lives, `sweep` leaves it alone.
        yield partial
        partial.replace(path)
    finally:
        os.close(descriptor)
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Gives a folder to fill, which becomes `path`, where nothing or an empty folder is, at the
    end: an error leaves nothing."""
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = unfinished(path)
    partial.mkdir()
    try:
        yield partial
        if path.is_dir():
            path.rmdir()
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sweep(folder: Path, name: str = "*") -> None:
    """Removes what killed processes left of files that were to be whole.

    Args:
      name: of the files, or a pattern of names.
    """
    for path in folder.glob(f".{name}.????????.unfinished"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            if try_lock(file.fileno()):
                path.unlink()


def try_lock(descriptor: int) -> bool | None:
    """Locks an open file until it is closed, by the end of the process at the latest.

    Returns:
      False if another one holds it; None if the file system knows no such locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def check_output(path: str | Path, setting: str) -> None:
    """Raises ConfigError unless a file that a person names can be written, as `open_output` does.

    Args:
      path: as it was given: what ends in a slash is no file.
      setting: what named it.
    """
    where = f"{setting} = {str(path)!r}"
    if os.path.isdir(path) or not str(path) or str(path).endswith("/"):
        raise ConfigError(f"{where}: is a folder; must be a file to write")
    try:
        if is_written_through(Path(path)):
            if stat.S_ISSOCK(os.stat(path).st_mode):
                raise OSError(errno.ENXIO, "Is a socket")
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, "Permission denied")
            return
        # Permission alone says little of a file system that is mounted read-only, or full.
        probe = unfinished(_followed(Path(path)))
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        probe.unlink()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"{where}: cannot be written ({reason}); must be a file in a folder that is there and "
            "can be written to"
        ) from None


def check_folder(path: Path, setting: str) -> None:
    """Raises ConfigError unless a folder that a person names can be made: nothing, or an empty
    folder, must be there.

    Args:
      setting: what named it.
    """
    named = f"{setting} = {str(path)!r}"
    if path.is_dir():
        if any(path.iterdir()):
            raise ConfigError(f"{named}: holds something; must be a new or an empty folder")
    elif path.exists():
        raise ConfigError(f"{named}: is a file; must be a new or an empty folder")
    above = path.absolute().parent
    while not above.exists():
        above = above.parent
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise ConfigError(f"{named}: {above} cannot be written to; must be a folder that can")


@contextlib.contextmanager
def open_output(path: Path, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Opens a file that a person names.

    It appears as a whole, with the permissions of the one that it replaces, where links lead to.
    What is no regular file, such as a device or a pipe, is written through.
    """
    if is_written_through(path):
        # Appending, which is the same to a pipe, and keeps what `>> file` has in /dev/stdout.
        with _opened(path, mode.replace("w", "a"), path) as file:
            yield file
        return
    target = _followed(path)
    sweep(target.parent, _literally(target.name))
    with atomic_write(target) as partial:
        if target.exists():
            shutil.copymode(target, partial)
        with _opened(partial, mode, path) as file:
            yield file


@contextlib.contextmanager
def _opened(path: Path, mode: str, name: Path) -> Iterator[IO[Any]]:
    """An open file; what goes wrong when the last of it is written is said of `name`."""
    with path.open(mode, encoding=None if "b" in mode else "utf-8") as file:
        try:
            yield file
        finally:
            with errors_of(str(name)):
                file.close()


@contextlib.contextmanager
def errors_of(name: str) -> Iterator[None]:
    """Says what the system says of what a person named, whatever it was called within."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from None


def _followed(path: Path) -> Path:
    """Where symbolic links lead to, there or not."""
    return Path(os.path.realpath(path))


def is_written_through(path: Path) -> bool:
    """Whether a path is there and no regular file, or one that this process holds open, such as
    /dev/stdout where it goes into a file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(found.st_mode) or str(path).startswith(("/dev/fd/", "/proc/")):
        return True
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            if os.path.samestat(found, os.fstat(descriptor)):
                return True
    return False


def _literally(name: str) -> str:
    """A pattern that only this name matches."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def crc32(path: Path) -> int:
    """CRC-32 of a file's bytes."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc
