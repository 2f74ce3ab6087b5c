"""The files of a checkpoint, and whether they are as they were written.

    STEP/state/       the train state, written by Orbax
    STEP/position/    about.json (what the run is), data_*.bin (the data iterator's position),
                      checksums.json (of every other file of the step)

Orbax notices truncated files, but hands out flipped bytes as parameters: hence the checksums.
"""

import os
import re
from pathlib import Path
from typing import Any

from spade_jax.config import RunError
from spade_jax.files import crc32
from spade_jax.runs.old_settings import renewed
from spade_jax.stored import Shape, read_json

STATE, POSITION = "state", "position"
ABOUT, CHECKSUMS = "about.json", "checksums.json"
# What a checkpoint is nothing without.
_NEEDED = (f"{POSITION}/{ABOUT}", f"{POSITION}/data_0.bin", f"{STATE}/_METADATA")


class CheckpointError(RunError):
    """A checkpoint that cannot be written or read: the message names it and says what to do."""


def checksums(step_directory: Path) -> dict[str, int]:
    """CRC-32 of every file of the two items but the checksums themselves, by relative path."""
    sums = {}
    for item in (STATE, POSITION):
        for path in sorted(step_directory.glob(f"{item}*/**/*")):
            # While it is written, an item's directory has a temporary suffix.
            inside = path.relative_to(step_directory).parts[1:]
            if path.is_file() and path.name not in (CHECKSUMS, "commit_success.txt"):
                sums["/".join((item, *inside))] = crc32(path)
    return sums


def problem_of(step_directory: Path) -> str | None:
    """What is wrong with the files of a checkpoint, or None."""
    if not os.path.lexists(step_directory):
        return f"{step_directory}: is not there"
    try:
        expected = read_json(
            step_directory / POSITION / CHECKSUMS,
            {str: int},
            advice="nothing can be compared with it",
            error=CheckpointError,
        )
        if expected is None:
            return f"{step_directory}: has no {POSITION}/{CHECKSUMS}"
        found = checksums(step_directory)
        for name in dict.fromkeys([*expected, *_NEEDED]):
            if name not in found:
                return f"{step_directory}: file {name} is missing"
        for name, crc in found.items():
            if name not in expected:
                return f"{step_directory}: file {name} is not in {POSITION}/{CHECKSUMS}"
            if expected[name] != crc:
                return f"{step_directory}: file {name} is damaged"
        # One of an earlier version does not say.
        step = int(step_directory.name)
        require_step(step_directory, read_about(step_directory).get("step", step))
    except OSError as error:
        return f"{step_directory}: cannot be read ({first_line(error)})"
    except CheckpointError as error:
        return str(error)
    return None


def read_about(step_directory: Path, settings: Shape = dict) -> dict[str, Any]:
    path = step_directory / POSITION / ABOUT
    shape = {
        "settings": settings,
        "vocabulary": str,
        "dropout_numbers?": int,
        "data?": {str: {str: str}},
        "step?": int,
        "scores?": {str: float},
    }
    advice = "must be as the run wrote it"
    about = read_json(path, shape, advice=advice, error=CheckpointError)
    if about is None:
        raise CheckpointError(f"{path}: is missing")
    return about | {"settings": renewed(about["settings"])}


def require_step(step_directory: Path, saved: int) -> None:
    """Raises CheckpointError where a checkpoint has been given another one's name."""
    if saved != int(step_directory.name):
        raise CheckpointError(f"{step_directory}: was saved at step {saved}; must have that name")


def steps_in(directory: Path) -> list[int]:
    """The steps whose checkpoints are in a directory, if it is there."""
    if not os.path.lexists(directory):
        return []
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: is a file; must be a folder of checkpoints")
    return [int(name) for name in os.listdir(directory) if is_step(name)]


def is_step(name: str) -> bool:
    """Whether it is what a checkpoint's folder is called: no sign, no zeros before the number."""
    return re.fullmatch(r"0|[1-9][0-9]{0,17}", name) is not None


def first_line(error: BaseException) -> str:
    """The gist of a library's error, without the names of nodes that TensorFlow puts before it."""
    text = re.sub(r"\{\{.*?\}\} *", "", str(error)).strip()
    line = (text.splitlines() or [type(error).__name__])[0]
    return line if len(line) < 300 else f"{line[:150]} … {line[-150:]}"
