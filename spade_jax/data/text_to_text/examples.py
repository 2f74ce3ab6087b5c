"""The examples of a task: pairs of texts, made of rows of tables or of TFDS."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import NamedTuple

import tensorflow_datasets as tfds

from spade_jax.data.config import DataError
from spade_jax.data.digests import digest_files, place
from spade_jax.data.task_config import TaskConfig
from spade_jax.data.text_to_text.formats import Row, RowError
from spade_jax.data.text_to_text.splits import Part, find_builder
from spade_jax.data.text_to_text.tables import read_tables
from spade_jax.data.text_to_text.task import Split
from spade_jax.data.text_to_text.values import python_value
from spade_jax.data.text_to_text.vocabulary_coverage import (
    PairTokenizer,
    check_measured,
    check_words,
)
from spade_jax.data.vocabulary import load_vocabulary


class Pair(NamedTuple):
    """One example as text.

    Attributes:
      number: its index in the data set, as a submission names it.
      target: "" where a test set keeps it secret.
    """

    number: str
    input: str
    target: str


def read_pairs(part: Part, config: TaskConfig, broken: list[str] | None = None) -> Iterator[Pair]:
    """All pairs of a part, in order.

    Args:
      broken: where rows stand that are left out is added here, of a task that leaves rows out.

    Raises:
      DataError: a row that makes none, with where it stands.
    """
    if isinstance(part.source, tuple):
        yield from _read_tables(part, config, [] if broken is None else broken)
        return
    rows = find_builder(part.task, config).as_dataset(
        split=part.source, read_config=tfds.ReadConfig(try_autocache=False)
    )
    for number, row in enumerate(rows.as_numpy_iterator()):
        where = f"{part.task.tfds}, {part.source} {number}"
        row = {column: python_value(value) for column, value in row.items()}
        yield make_pair(row, where, number, part, config)


def _read_tables(part: Part, config: TaskConfig, broken: list[str]) -> Iterator[Pair]:
    task = part.task
    leave_out = broken if task.leaves_out_broken else None
    number = 0
    for where, row in read_tables(part.source, config.header, task.columns, leave_out):
        pieces = [*task.expand(row)]
        here = _is_in(part, pieces, where, config)
        for piece in pieces:
            # TFDS counts those that it leaves out as well.
            index = number + len(broken)
            if here:
                yield make_pair(piece, where, index, part, config)
            number += 1


def _is_in(part: Part, pieces: list[Row], where: str, config: TaskConfig) -> bool:
    """Whether a row is in a part, and not on the other side of what is held out; all pieces of a
    row are on one side."""
    if not config.holds_out or part.split == "test" or not pieces:
        return True
    # As of training: what validation asks beyond that, it asks of its own rows.
    first = make_pair(pieces[0], where, 0, dataclasses.replace(part, split="train"), config)
    held_out = place([first.input.encode("utf-8")], config.split_seed) < config.validation_share
    return held_out == (part.split == "validation")


def make_pair(row: Row, where: str, number: int, part: Part, config: TaskConfig) -> Pair:
    """The pair of a row.

    Args:
      where: it stands.
      number: its index, unless it has one of its own.

    Raises:
      DataError: it makes none, or one whose target could not be measured.
    """
    task, vocabulary = part.task, load_vocabulary(config)
    try:
        text, target = task.pair(row, labelled=part.split != "test")
        vocabulary.check_sentinels(text)
        vocabulary.check_sentinels(target)
        if target and part.split != "train":
            check_measured(target, task, vocabulary, config.target_length)
        elif target and isinstance(part.source, tuple):
            check_words(target, task)
    except (RowError, DataError) as error:
        raise DataError(f"{where}: {error}") from None
    index = str(row.get("idx", row.get("index", number)))
    if task.submission and not index.isdecimal():
        raise DataError(f"{where}: index {index!r} is not a whole number; a submission needs one")
    return Pair(index, text, target)


def load_table(part: Part, config: TaskConfig) -> list[Pair]:
    """All pairs of local tables: held in memory, so that training can take them in any order."""
    return load_table_with_gaps(part, config)[0]


def load_table_with_gaps(part: Part, config: TaskConfig) -> tuple[list[Pair], list[str]]:
    """As `load_table`, and where rows stand that were left out."""
    assert isinstance(part.source, tuple)
    versions = tuple(digest_files(part.source).values())
    return _load_table(part.task.name, part.source, part.split, config, versions)


@functools.lru_cache(maxsize=32)
def _load_table(
    name: str, files: tuple[str, ...], split: Split, config: TaskConfig, versions: tuple
) -> tuple[list[Pair], list[str]]:
    """`versions` make sure that files which have changed are read again."""
    task = next(task for task in config.tasks if task.name == name)
    broken: list[str] = []
    return list(read_pairs(Part(name, task, split, 0, files), config, broken)), broken


def make_tokenizer(config: TaskConfig) -> PairTokenizer:
    """What makes tokens of a task's pairs."""
    return PairTokenizer(load_vocabulary(config), config.input_length, config.target_length)
