"""What a task is that T5 learns as text to text (Raffel et al. 2020)."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from spade_jax.config.schema import did_you_mean
from spade_jax.data.text_to_text.formats import Row, RowError, text

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def _alone(row: Row) -> Iterable[Row]:
    return (row,)


@dataclasses.dataclass(frozen=True)
class TextToText:
    """One task.

    Attributes:
      name: what configurations call it.
      columns: those that the input is made of.
      target: the column that the target is made of.
      write_input: row -> the input.
      write_target: value of the target column -> the target.
      metrics: names in `spade_jax.data.metrics`.
      labels: all targets there are, by class number; empty where targets are free text.
      aliases: other names that columns have in published files, by the names here.
      tfds: TFDS name, configuration and version; None where there is none.
      splits: TFDS splits of each of our splits; several are evaluated apart.
      submission: the file that the GLUE leaderboard takes, for each test split.
      expand: cuts a row of the files into several rows.
      prefix: what inputs of free text begin with, beside what the data holds.
      may_be_empty: columns that are empty in a few published rows, which T5 keeps.
      leaves_out_broken: whether rows of fewer columns than the header, of which a published file
        has some, are left out, as TFDS leaves them out.
    """

    name: str
    columns: tuple[str, ...]
    target: str
    write_input: Callable[[Row], str]
    write_target: Callable[[Any], str]
    metrics: tuple[str, ...]
    labels: tuple[str, ...] = ()
    aliases: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    tfds: str | None = None
    splits: Mapping[Split, tuple[str, ...]] = dataclasses.field(
        default_factory=lambda: {split: (split,) for split in SPLITS}
    )
    submission: tuple[str, ...] = ()
    expand: Callable[[Row], Iterable[Row]] = _alone
    prefix: str = ""
    may_be_empty: tuple[str, ...] = ()
    leaves_out_broken: bool = False

    def part_names(self, split: Split) -> tuple[str, ...]:
        """What the parts of a split are called: "rte"; "mnli_matched" and "mnli_mismatched"."""
        names = self.splits.get(split, ())
        if len(names) < 2:
            return (self.name,) * len(names)
        return tuple(self.name + name.removeprefix(split) for name in names)

    def pair(self, row: Row, *, labelled: bool = True) -> tuple[str, str]:
        """The input and the target of a row.

        Args:
          labelled: whether the row must have a target; where it need not, and has none, the target
            is "".

        Raises:
          RowError: a column that is missing or empty, or a label that is none of `labels`.
        """
        text = self.input(row)
        name = self._name(row, self.target)
        if name is None and labelled:
            raise _no_column(row, self.target)
        target = None if name is None else row[name]
        if _is_empty(target) or (not labelled and self._hides(target)):
            if labelled:
                raise RowError(f"column {self.target!r} is empty")
            return text, ""
        return text, self.write_target(target)

    def input(self, row: Row) -> str:
        """The input of a row, whatever its target.

        Raises:
          RowError: a column that is missing or empty.
        """
        found = {}
        for column in self.columns:
            name = self._name(row, column)
            if name is None:
                raise _no_column(row, column)
            found[column] = row[name]
            if _is_empty(found[column]):
                if column not in self.may_be_empty:
                    raise RowError(f"column {column!r} is empty")
                found[column] = ""
        return self.write_input(found)

    def _name(self, row: Row, column: str) -> str | None:
        """What a column is called in a row; None where it is not there."""
        return next((n for n in (column, *self.aliases.get(column, ())) if n in row), None)

    def _hides(self, target: Any) -> bool:
        """Whether it is the -1 for a secret label of a test set, and no label or text itself."""
        if isinstance(target, list) or self.write_target is text or "-1" in self.labels:
            return False
        return str(target) in ("-1", "-1.0")


def _no_column(row: Row, column: str) -> RowError:
    there = ", ".join(map(repr, row)) or "none at all"
    return RowError(f"has no column {column!r}, but {there}{did_you_mean(column, map(str, row))}")


def _is_empty(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, float):
        return math.isnan(value)  # What pandas writes into Parquet for a cell without a number.
    return value is None or (isinstance(value, list) and all(map(_is_empty, value)))
