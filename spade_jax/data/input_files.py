"""Files that settings name: by paths and globs, each once, and in one split only."""

import collections
import glob
import os
from collections.abc import Iterable
from typing import Any

from etils import epath

from spade_jax.data._tensorflow import first_line, tf
from spade_jax.data.config import DataError

SHIPPED_TEXT = epath.Path(__file__).parent / "text"


def glob_files(names: str | Iterable[str], setting: str) -> list[str]:
    """The files that paths and globs lead to, those of each glob sorted.

    What is the path of a file is that file, whatever letters it has, and folders that are there are
    those: only what is neither is a glob, or, of one string, several separated by commas.

    Raises:
      DataError: one without a file, or a file named twice.
    """
    if isinstance(names, str):
        names = [names] if is_file(names) else names.split(",")
    patterns = [name if is_file(name) else name.strip() for name in names if name.strip()]
    files: list[str] = []
    for pattern in patterns:
        try:
            found = [pattern] if is_file(pattern) else _matching(pattern)
        except tf.errors.OpError as error:
            raise DataError(f"{setting} = {pattern!r}: {first_line(error)}") from None
        if not found:
            raise DataError(
                f"{setting} = {pattern!r}: no such file; must be a path, or a glob that matches "
                "files"
            )
        files += found
    counts = collections.Counter(map(_real, files))
    twice = [path for path in files if counts[_real(path)] > 1]
    if twice:
        raise DataError(f"{setting} = {','.join(patterns)!r}: names {twice[0]} twice")
    return files


def is_file(path: str) -> bool:
    """Whether a path is that of a file, and no folder."""
    try:
        return tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path)
    except tf.errors.OpError:  # A list of files of a remote system is no name there.
        return False


def _matching(pattern: str) -> list[str]:
    """The files that a glob matches, sorted."""
    folder, _, name = pattern.rpartition("/")
    if set(folder) & set("*?["):
        while folder and not tf.io.gfile.isdir(folder):
            folder, _, above = folder.rpartition("/")
            name = f"{above}/{name}"
        pattern = f"{glob.escape(folder)}/{name}" if folder else pattern
    return sorted(path for path in tf.io.gfile.glob(pattern) if not tf.io.gfile.isdir(path))


def _real(path: str) -> str:
    """The one name of a local file."""
    return path if "://" in path else os.path.realpath(path)


def check_disjoint(sets: Iterable[tuple[str, Any, Iterable[str]]]) -> None:
    """Looks for a file, under whatever name, that is in sets which must have none in common.

    Args:
      sets: of each the setting, its value and its files; those of one setting may share files.

    Raises:
      DataError: there is one.
    """
    seen: dict[str, str] = {}
    for setting, value, files in sets:
        for path in files:
            other = seen.setdefault(_real(path), setting)
            if other != setting:
                raise DataError(
                    f"{setting} = {value!r}: {path} is in {other} as well; a file must be in one "
                    "of them only"
                )
