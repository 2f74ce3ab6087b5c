"""Outputs of a command that may be stopped, beside the file that they become."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from spade_jax.config import RunError
from spade_jax.files import errors_of, try_lock
from spade_jax.stored import read_json_lines

# The first line says what the outputs depend on; each one after it is a batch.
_LINES = ({"about": str}, {"outputs": [str]})


class Partial:
    """Keeps batches of outputs in `FILE.partial`, where a second start of a command finds them.

    Leaves nothing of an error before the first batch.

    Args:
      output: the file that they become.
      about: all that the outputs depend on.

    Attributes:
      batches: those that are there from an earlier start.
      begins_anew: whether there were some of another command, or of other inputs, which are gone.

    Raises:
      RunError: another process writes it, or it is damaged.
    """

    def __init__(self, output: str, about: Mapping[str, Any]):
        target = Path(os.path.realpath(output))
        self.path = target.with_name(f"{target.name}.partial")
        self._output, self._removed = output, False
        with errors_of(output):
            self._file = self.path.open("a+b")
        try:
            if try_lock(self._file.fileno()) is False:
                raise RunError(
                    f"{self.path}: another process is writing it; wait for that one, or take "
                    "another --output"
                )
            self.batches, self.begins_anew = self._begin(about)
        except BaseException:
            self._file.close()
            raise
        self._empty = not self.batches

    def add(self, batch: list[str]) -> None:
        """Keeps one more."""
        self._write({"outputs": batch})
        self._empty = False

    def remove(self) -> None:
        """Once the output is there."""
        self.path.unlink(missing_ok=True)
        self._removed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._empty and not self._removed:
            self.remove()
        self._file.close()

    def _begin(self, about: Mapping[str, Any]) -> tuple[list[list[str]], bool]:
        """The batches that are there, and whether others were; the file ends behind them."""
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        advice = "delete it, and the same command begins anew"
        lines = read_json_lines(self.path, _LINES, advice=advice, error=RunError)
        if lines and lines[0] == {"about": digest}:
            self._file.seek(0)
            # What an interruption left of the last line goes.
            self._file.truncate(self._file.read().rfind(b"\n") + 1)
            return [line["outputs"] for line in lines[1:]], False
        self._file.truncate(0)
        self._write({"about": digest})
        return [], len(lines) > 1

    def _write(self, line: Mapping[str, Any]) -> None:
        with errors_of(self._output):
            self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            self._file.flush()
