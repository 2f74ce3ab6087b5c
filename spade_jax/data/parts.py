"""The parts of a task's data: what each split of each task is read from, and its pairs of texts."""

import collections
import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import tensorflow_datasets as tfds

from spade_jax.config import require
from spade_jax.data import prepared
from spade_jax.data.config import DataError
from spade_jax.data.contents import digest_files
from spade_jax.data.rows import python_value, read_rows
from spade_jax.data.sources import SHIPPED_TEXT, check_disjoint, glob_files, is_file
from spade_jax.data.task_config import TaskConfig
from spade_jax.data.text_to_text import SPLITS, Row, RowError, Split, TextToText
from spade_jax.data.vocabulary import load_vocabulary
from spade_jax.data.writable import Losses, PairTokenizer, check_measured, check_words


class Pair(NamedTuple):
    """One example as text.

    Attributes:
      number: its index in the data set, as a submission names it.
      target: "" where a test set keeps it secret.
    """

    number: str
    input: str
    target: str


@dataclasses.dataclass(frozen=True)
class Part:
    """One task's rows of one split, or of one of the two that MNLI has of it.

    Attributes:
      name: the task's, with what tells parts apart: "rte", "mnli_matched".
      number: which of the task's parts of this split.
      source: name of the split in TFDS, or the paths of tables.
    """

    name: str
    task: TextToText
    split: Split
    number: int
    source: str | tuple[str, ...]


def parts(config: TaskConfig, split: Split) -> list[Part]:
    """What there is of a split, of each task.

    Raises:
      DataError: paths without files, or a data set that TFDS has not prepared.
    """
    found = []
    for task in config.tasks:
        names = task.splits.get(split, ())
        sources: list[str | tuple[str, ...]] = []
        if config.local:
            sources = [*_tables(config, task, split)]
        elif task.tfds is None:
            sources = [(str(SHIPPED_TEXT / f"sotu.{name}.jsonl.gz"),) for name in names]
        else:
            there = find_builder(task, config).info.splits
            sources = [name if name in there else () for name in names]
        for number, (name, source) in enumerate(zip(task.part_names(split), sources)):
            if source:
                found.append(Part(name, task, split, number, source))
    return found


def _tables(config: TaskConfig, task: TextToText, split: Split) -> list[tuple[str, ...]]:
    """The files of each of a task's parts."""
    setting, names = f"task.{split}", task.splits.get(split, ())
    value, patterns = getattr(config, split), config.patterns(split)
    if not patterns or not names:
        return []

    def files(named: str | tuple[str, ...], kind: str = "") -> tuple[str, ...]:
        return tuple(glob_files(_filled(named, task, kind), setting))

    if len(names) == 1:
        return [files(value)]
    # Of validation_matched it is "_matched", as in the names of MNLI's own files.
    kinds = [name.removeprefix(split) for name in names]
    if len(patterns) == 1 and "{part}" in patterns[0]:
        patterns *= len(kinds)
    elif isinstance(value, str) and "{part}" in value and _are_files(value, task, kinds):
        patterns = (value,) * len(kinds)  # A comma in the names of files.
    require(
        len(patterns) == len(names),
        setting,
        value,
        f"must name a table for each of {', '.join(names)}, or have {{part}} in its name",
    )
    return [files((pattern,), kind) for pattern, kind in zip(patterns, kinds)]


def _are_files(named: str, task: TextToText, kinds: list[str]) -> bool:
    return all(is_file(str(_filled(named, task, kind))) for kind in kinds)


def _filled(named: str | tuple[str, ...], task: TextToText, kind: str) -> str | tuple[str, ...]:
    """Names of files with what "{task}" and "{part}" stand for in them."""
    if isinstance(named, tuple):
        return tuple(str(_filled(name, task, kind)) for name in named)
    if is_file(named):
        return named
    return named.replace("{task}", task.name).replace("{part}", kind)


def find_builder(task: TextToText, config: TaskConfig) -> tfds.core.DatasetBuilder:
    """The data set of a task in TFDS.

    Raises:
      DataError: it is not prepared, or lacks a column of the task.
    """
    builder = prepared.find_builder(str(task.tfds), config.data_dir, "task")
    for column in (*task.columns, task.target):
        if column not in builder.info.features:
            raise DataError(
                f"{task.tfds}: has no column {column!r}, but {', '.join(builder.info.features)}"
            )
    return builder


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
    for path in part.source:
        for where, row in read_rows(path, config.header, task.columns, leave_out):
            for piece in task.expand(row):
                # TFDS counts those that it leaves out as well.
                place = number + len(broken)
                yield make_pair(piece, where, place, part, config)
                number += 1


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


def make_tokenizer(config: TaskConfig) -> PairTokenizer:
    """What makes tokens of a task's pairs."""
    return PairTokenizer(load_vocabulary(config), config.input_length, config.target_length)


def load_table(part: Part, config: TaskConfig) -> list[Pair]:
    """All pairs of local tables: held in memory, so that training can take them in any order."""
    return _load(part, config)[0]


def _load(part: Part, config: TaskConfig) -> tuple[list[Pair], list[str]]:
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


def digest_parts(config: TaskConfig, split: Split) -> dict[str, dict[str, str]]:
    """For each part of a split, by name, what it is read from, each with a digest.

    Of tables that is one of their contents; of TFDS, which names data by version, of what it says
    of the split: its shards and their sizes.

    Raises:
      DataError: what `parts` finds, or a table cannot be read.
    """
    found = {}
    for part in parts(config, split):
        if isinstance(part.source, tuple):
            # Where the package lies is of no account.
            found[part.name] = {
                path.removeprefix(f"{SHIPPED_TEXT}/"): value
                for path, value in digest_files(part.source).items()
            }
        else:
            info = find_builder(part.task, config).info
            found[part.name] = {
                f"{info.full_name} {part.source}": prepared.digest_split(info, part.source)
            }
    return found


@dataclasses.dataclass(frozen=True)
class Looked:
    """What is to be said of local tables before they are used.

    Attributes:
      part: whose tables they are.
      rows: how many they have.
      broken: where rows stand that are left out.
      repeated: of the splits before, how many of the rows have an input that is, letter by letter,
        one of theirs as well.
      losses: of test tables, what the vocabulary takes from them; of the others it is said where
        their examples are made tokens.
    """

    part: Part
    rows: int
    broken: list[str]
    repeated: dict[Split, int]
    losses: Losses


def check_splits(config: TaskConfig) -> None:
    """Raises DataError where a table is in more than one split."""
    check_disjoint(
        (f"task.{split}", getattr(config, split), part.source)
        for split in SPLITS
        for part in parts(config, split)
        if isinstance(part.source, tuple)
    )


def look_through(config: TaskConfig, splits: Iterable[Split] = SPLITS) -> list[Looked]:
    """Reads all local tables of splits through.

    Raises:
      DataError: a row that makes no pair.
    """
    looked = []
    inputs: dict[tuple[str, Split], set[str]] = collections.defaultdict(set)
    for split in splits:
        for part in parts(config, split):
            if not isinstance(part.source, tuple):
                continue
            broken: list[str] = []
            if split == "train":
                pairs, broken = _load(part, config)
            else:
                pairs = list(read_pairs(part, config, broken))
            repeated = {
                before: sum(pair.input in texts for pair in pairs)
                for (task, before), texts in inputs.items()
                if task == part.task.name and before != split
            }
            inputs[part.task.name, split].update(pair.input for pair in pairs)
            tokenizer = make_tokenizer(config)
            for pair in pairs if split == "test" else ():
                tokenizer(pair.input, pair.target)
            looked.append(Looked(part, len(pairs), broken, repeated, tokenizer.losses))
    return looked
