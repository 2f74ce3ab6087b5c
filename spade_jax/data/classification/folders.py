"""Folders of images: one for each class, or as Pathfinder is published."""

import os
from collections.abc import Sequence
from pathlib import Path

from spade_jax.data.config import DataError

_ENDINGS = (".png", ".jpg", ".jpeg")
_MOST_NAMED = 3


def class_names(folders: Sequence[str]) -> tuple[str, ...]:
    """The names of the folders in some folders, sorted.

    Raises:
      DataError: one of them is no folder.
    """
    names = {path.name for folder in folders for path in _listed(folder) if path.is_dir()}
    return tuple(sorted(name for name in names if not name.startswith(".")))


def class_folder_files(folder: str, classes: Sequence[str]) -> list[tuple[str, str]]:
    """The images in a folder of folders, each with the name of its class, sorted.

    Raises:
      DataError: a folder that is no class, or one without an image.
    """
    found: list[tuple[str, str]] = []
    for name in class_names([folder]):
        if name not in classes:
            raise DataError(
                f"{folder}: has a folder {name!r}; must have those of the classes alone, which are "
                f"{', '.join(classes)}"
            )
        images = [p for p in _listed(f"{folder}/{name}") if p.suffix.lower() in _ENDINGS]
        if not images:
            raise DataError(f"{folder}/{name}: has no image; must have {', '.join(_ENDINGS)} files")
        found += [(str(path), name) for path in images]
    if not found:
        raise DataError(f"{folder}: has no folders; must have one for each class")
    return found


def pathfinder_files(folder: str) -> list[tuple[str, str, str]]:
    """The images that the metadata of a Pathfinder folder lists, in its order: where each is
    listed, its path and its label.

    `metadata/N.npy` is text, in spite of its name: a line `imgs/N sample_M.png M label …` for each
    image. Files that no line lists are left alone.

    Raises:
      DataError: no metadata, a line of another form, or files that are not there.
    """
    root = Path(folder)
    lists = [path for path in _listed(f"{folder}/metadata") if path.suffix == ".npy"]
    if not lists:
        raise DataError(f"{folder}/metadata: has no .npy file; must list the images")
    found = [row for path in sorted(lists, key=_by_number) for row in _metadata(path, root)]
    listed = {os.path.dirname(path) for _, path, _ in found}
    there = {
        f"{name}/{file}" for name in listed if os.path.isdir(name) for file in os.listdir(name)
    }
    missing = [path for _, path, _ in found if path not in there]
    if missing:
        more = len(missing) - _MOST_NAMED
        raise DataError(
            f"{folder}: {len(missing)} of {len(found)} listed images are missing: "
            f"{', '.join(missing[:_MOST_NAMED])}{f' and {more} more' if more > 0 else ''}"
        )
    return found


def _metadata(path: Path, root: Path) -> list[tuple[str, str, str]]:
    try:
        lines = path.read_bytes().decode("utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is no text; must have lines `imgs/0 sample_0.png 0 1`") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if len(fields) < 4 or ".." in (fields[0] + fields[1]):
            raise DataError(
                f"{path}, line {number}: is {line!r:.80}; must be folder, file, number, label and "
                "more, such as `imgs/0 sample_0.png 0 1`"
            )
        rows.append((f"{path}, line {number}", f"{root / fields[0] / fields[1]}", fields[3]))
    if not rows:
        raise DataError(f"{path}: is empty; must list the images")
    return rows


def _by_number(path: Path) -> tuple[int, str]:
    return (int(path.stem) if path.stem.isdecimal() else -1, path.stem)


def _listed(folder: str) -> list[Path]:
    """What is in a folder, sorted."""
    try:
        return sorted(Path(folder).iterdir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror or error}") from None
