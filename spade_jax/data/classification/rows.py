"""Rows of all sources: what is classified, and its class."""

import itertools
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from spade_jax.data import tfds_datasets
from spade_jax.data.classification.cifar10 import read_cifar10
from spade_jax.data.classification.config import (
    IMAGE_ENCODINGS,
    SPLITS,
    ClassificationDataConfig,
    Split,
)
from spade_jax.data.classification.folders import (
    class_folder_files,
    class_names,
    pathfinder_files,
)
from spade_jax.data.classification.images import check_size, grey, read_image
from spade_jax.data.config import DataError
from spade_jax.data.digests import place
from spade_jax.data.input_files import check_disjoint, glob_files
from spade_jax.data.text_to_text import tables
from spade_jax.data.text_to_text.formats import RowError, text
from spade_jax.data.text_to_text.values import python_value

# Images that are read at a time, and how many are asked for before they are taken.
_READERS = 8
_AHEAD = 256


class Row(NamedTuple):
    """One example.

    Attributes:
      where: it stands, for messages.
      inputs: texts, or one image in grey, uint8 [side, side].
      label: the number of its class.
    """

    where: str
    inputs: tuple[Any, ...]
    label: int

    def contents(self) -> Iterator[bytes]:
        """Those of each input: equal for equal inputs."""
        for value in self.inputs:
            yield value.encode("utf-8") if isinstance(value, str) else value.tobytes()


def read_rows(config: ClassificationDataConfig, split: Split) -> Iterator[Row]:
    """The rows of what a split's setting names, in order.

    Raises:
      DataError: something is not there or cannot be read, an image of another size, a text that is
        empty, or a label that is no class.
    """
    return _READERS_BY_SOURCE[config.source](config, split)


def split_of(row: Row, config: ClassificationDataConfig) -> Split:
    """The split that a training row is of, by its contents alone: equal rows are in the same."""
    if not (config.validation_share or config.test_share):
        return "train"
    found = place(row.contents(), config.split_seed)
    if found < config.test_share:
        return "test"
    return "validation" if found < config.test_share + config.validation_share else "train"


def check_splits(config: ClassificationDataConfig) -> None:
    """Raises DataError where a file, folder or example of TFDS is not there, or in two splits."""
    splits = [split for split in SPLITS if config.patterns(split)]
    if config.source != "tfds":
        check_disjoint(
            (f"data.{split}", getattr(config, split), _files(config, split)) for split in splits
        )
        return
    builder = _find_builder(config)
    ranges = {split: _ranges(builder, config, split) for split in splits}
    for one, other in itertools.combinations(splits, 2):
        if tfds_datasets.overlap(ranges[one], ranges[other]):
            raise DataError(
                f"data.{other} = {getattr(config, other)!r}: overlaps data.{one} = "
                f"{getattr(config, one)!r}; an example must be in one split only"
            )


def _files(config: ClassificationDataConfig, split: Split) -> list[str]:
    if config.source in ("image_folder", "pathfinder"):
        return [folder.rstrip("/") for folder in config.patterns(split)]
    return glob_files(getattr(config, split), f"data.{split}")


def _table_rows(config: ClassificationDataConfig, split: Split) -> Iterator[Row]:
    columns = (*config.inputs, config.target)
    for where, row in tables.read_tables(_files(config, split), config.header, columns):
        yield _text_row(row, where, config)


def _find_builder(config: ClassificationDataConfig) -> tfds.core.DatasetBuilder:
    builder = tfds_datasets.find_builder(str(config.name), config.data_dir, "data")
    features = builder.info.features
    for column in (*config.inputs, config.target):
        if column not in features:
            raise DataError(
                f"{config.name}: has no feature {column!r}, but {', '.join(sorted(features))}; set "
                "data.inputs and data.target"
            )
    return builder


def _spec(config: ClassificationDataConfig, split: Split) -> str:
    return "+".join(config.patterns(split))


def _ranges(
    builder: tfds.core.DatasetBuilder, config: ClassificationDataConfig, split: Split
) -> list[tfds_datasets.SplitRange]:
    setting = f"data.{split} = {getattr(config, split)!r}"
    return tfds_datasets.split_ranges(builder, _spec(config, split), setting, str(config.name))


def _tfds_rows(config: ClassificationDataConfig, split: Split) -> Iterator[Row]:
    builder, spec = _find_builder(config), _spec(config, split)
    _ranges(builder, config, split)  # TFDS itself has no words for a split that is not there.
    dataset = builder.as_dataset(split=spec, read_config=tfds.ReadConfig(try_autocache=False))
    for number, row in enumerate(dataset.as_numpy_iterator()):
        where = f"{config.name}, {spec} {number}"
        if config.encoding in IMAGE_ENCODINGS:
            image = check_size(grey(np.asarray(row[config.inputs[0]]), where), config.side, where)
            yield Row(where, (image,), _class(python_value(row[config.target]), where, config))
        else:
            yield _text_row({n: python_value(value) for n, value in row.items()}, where, config)


def _cifar10_rows(config: ClassificationDataConfig, split: Split) -> Iterator[Row]:
    for path in _files(config, split):
        for where, image, label in read_cifar10(path):
            image = check_size(image, config.side, where)
            yield Row(where, (image,), _class(label, where, config))


def folder_labels(config: ClassificationDataConfig) -> tuple[str, ...]:
    """The names of the classes of an "image_folder".

    Raises:
      DataError: there are more or fewer.
    """
    names = config.labels or class_names(_files(config, "train"))
    if len(names) != config.classes:
        raise DataError(
            f"data.train = {config.train!r}: has {len(names)} folders ({', '.join(names)}); must "
            f"have one for each of data.classes = {config.classes}"
        )
    return names


def _image_folder_rows(config: ClassificationDataConfig, split: Split) -> Iterator[Row]:
    names = folder_labels(config)
    numbers = {name: number for number, name in enumerate(names)}
    listed = [
        (path, path, numbers[name])
        for folder in _files(config, split)
        for path, name in class_folder_files(folder, names)
    ]
    return _image_rows(listed, config)


def _pathfinder_rows(config: ClassificationDataConfig, split: Split) -> Iterator[Row]:
    listed = [
        (path, path, _class(label, where, config))
        for folder in _files(config, split)
        for where, path, label in pathfinder_files(folder)
    ]
    return _image_rows(listed, config)


def _image_rows(
    listed: list[tuple[str, str, int]], config: ClassificationDataConfig
) -> Iterator[Row]:
    """Rows of files: where each stands, its path and its class."""
    with ThreadPoolExecutor(_READERS) as pool:
        for first in range(0, len(listed), _AHEAD):
            some = listed[first : first + _AHEAD]
            images = pool.map(lambda row: read_image(row[1], config.side), some)
            for (where, _, label), image in zip(some, images):
                yield Row(where, (image,), label)


_READERS_BY_SOURCE = {
    "table": _table_rows,
    "tfds": _tfds_rows,
    "cifar10": _cifar10_rows,
    "image_folder": _image_folder_rows,
    "pathfinder": _pathfinder_rows,
}


def _text_row(row: Mapping[str, Any], where: str, config: ClassificationDataConfig) -> Row:
    for column in (*config.inputs, config.target):
        if column not in row:
            there = ", ".join(map(repr, row)) or "none at all"
            raise DataError(
                f"{where}: has no column {column!r}, but {there}; set data.inputs and data.target"
            )
    texts = []
    for column in config.inputs:
        try:
            texts.append("" if row[column] is None else text(row[column]))
        except RowError as error:
            raise DataError(f"{where}: column {column!r}: {error}") from None
        if not texts[-1].strip():
            raise DataError(f"{where}: column {column!r} is empty; must hold a text")
    return Row(where, tuple(texts), _class(row[config.target], where, config))


def _class(value: Any, where: str, config: ClassificationDataConfig) -> int:
    """The number of a class; a text is its name where classes have names."""
    if isinstance(value, str) and config.labels:
        if value.strip() in config.labels:
            return config.labels.index(value.strip())
        right = f"one of data.labels, which are {', '.join(config.labels)}"
    else:
        try:
            number = float(value)
            if number.is_integer() and 0 <= number < config.classes:
                return int(number)
        except (TypeError, ValueError):
            pass
        right = (
            f"a whole number from 0 to {config.classes - 1} (data.classes = {config.classes}), or "
            "data.labels must name the classes"
        )
    raise DataError(f"{where}: has the label {value!r:.60}; must be {right}")
