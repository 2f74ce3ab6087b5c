"""What each split of each task is read from: tables, or splits of TFDS."""

import dataclasses

import tensorflow_datasets as tfds

from spade_jax.config import require
from spade_jax.data import tfds_datasets
from spade_jax.data.config import DataError
from spade_jax.data.digests import digest_files
from spade_jax.data.input_files import SHIPPED_TEXT, check_disjoint, glob_files, is_file
from spade_jax.data.task_config import TaskConfig
from spade_jax.data.text_to_text.task import SPLITS, Split, TextToText


@dataclasses.dataclass(frozen=True)
class Part:
    """One task's rows of one split, or of one of the two that MNLI has of it.

    Attributes:
      name: the task's, with what tells parts apart: "rte", "mnli_matched".
      number: which of the task's parts of this split.
      source: name of the split in TFDS, or the paths of tables; both training and validation have
        those of which a share is held out, and each its own rows of them.
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
        if split == "validation" and config.holds_out:
            # The rows of these tables that are held out.
            tables = _tables(config, task, "train")
            found += [Part(task.name, task, split, 0, table) for table in tables]
            continue
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
    builder = tfds_datasets.find_builder(str(task.tfds), config.data_dir, "task")
    for column in (*task.columns, task.target):
        if column not in builder.info.features:
            raise DataError(
                f"{task.tfds}: has no column {column!r}, but {', '.join(builder.info.features)}"
            )
    return builder


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
                f"{info.full_name} {part.source}": tfds_datasets.digest_split(info, part.source)
            }
    return found


def check_splits(config: TaskConfig) -> None:
    """Raises DataError where a table is in more than one split."""
    check_disjoint(
        (f"task.{split}", getattr(config, split), part.source)
        for split in SPLITS
        if not (split == "validation" and config.holds_out)
        for part in parts(config, split)
        if isinstance(part.source, tuple)
    )
