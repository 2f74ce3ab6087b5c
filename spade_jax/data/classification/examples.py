"""The examples of all splits, encoded and held in memory: they can be taken in any order."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from spade_jax.data.batches import Arrays
from spade_jax.data.classification.config import (
    IMAGE_ENCODINGS,
    SPLITS,
    ClassificationDataConfig,
    Split,
)
from spade_jax.data.classification.encoders import Characters, Encoder, make_encoder
from spade_jax.data.classification.rows import (
    Row,
    check_splits,
    folder_labels,
    read_rows,
    split_of,
)
from spade_jax.data.config import DataError
from spade_jax.data.in_words import advise_length, describe_classes, describe_lengths
from spade_jax.objectives.classification_batch import PairBatch, ScalarBatch, TokenBatch


class Examples:
    """Encoded examples of a split, in the order of the data.

    Attributes:
      labels: int32 [n].
      lengths: int64 [n, 1 or 2], of whole sequences.
    """

    def __init__(
        self,
        config: ClassificationDataConfig,
        sequences: list[np.ndarray],
        labels: list[int],
        lengths: list[int],
    ):
        """Args: `sequences` are those of the first example, one or two, then of the next; as are
        their `lengths` before they were cut."""
        self._config = config
        self.labels = np.array(labels, np.int32)
        self.lengths = np.array(lengths, np.int64).reshape(len(labels), len(config.inputs))
        # One array of all: millions of small ones would take much more room.
        self._ends = np.cumsum([0, *map(len, sequences)])
        self._tokens = np.concatenate(sequences) if sequences else np.zeros(0, np.uint8)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def cut(self) -> int:
        """How many had a sequence that was too long."""
        return int((self.lengths > self._config.length).any(axis=1).sum())

    @functools.cached_property
    def digest(self) -> str:
        """Equal for equal examples in an equal order, wherever they were read from."""
        contents = hashlib.sha256()
        for array in (self._tokens, self._ends, self.labels):
            contents.update(str(array.dtype).encode() + np.ascontiguousarray(array).data)
        return contents.hexdigest()[:16]

    def batch(self, numbers: np.ndarray) -> Arrays:
        """The examples of these numbers as a batch, filled up to the configured length."""
        towers = len(self._config.inputs)
        arrays = [
            self._padded([number * towers + tower for number in numbers]) for tower in range(towers)
        ]
        labels, weights = self.labels[numbers], np.ones(len(numbers), np.int32)
        if self._config.batch is ScalarBatch:
            inputs, lengths = arrays[0]
            mean, std = np.float32(self._config.mean), np.float32(self._config.std)
            real = np.arange(inputs.shape[1]) < lengths[:, None]
            scaled = np.where(real, (inputs / np.float32(255) - mean) / std, 0)
            return ScalarBatch(labels, weights, scaled.astype(np.float32), lengths).named()
        tokens = [array for array, _ in arrays]
        if self._config.batch is PairBatch:
            return PairBatch(labels, weights, *tokens).named()
        return TokenBatch(labels, weights, *tokens).named()

    def _padded(self, numbers: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Sequences, int32 [b, l], and their lengths, int32 [b]."""
        padded = np.zeros((len(numbers), self._config.length), np.int32)
        lengths = np.zeros(len(numbers), np.int32)
        for row, number in enumerate(numbers):
            tokens = self._tokens[self._ends[number] : self._ends[number + 1]]
            padded[row, : len(tokens)] = tokens
            lengths[row] = len(tokens)
        return padded, lengths


class _Collector:
    """Encodes the rows of a split, one by one."""

    def __init__(self, config: ClassificationDataConfig, encoder: Encoder):
        self._config, self._encoder = config, encoder
        self._sequences: list[np.ndarray] = []
        self._labels: list[int] = []
        self._lengths: list[int] = []

    def add(self, row: Row) -> None:
        """Raises DataError for what cannot be encoded."""
        try:
            whole = [self._encoder(value) for value in row.inputs]
        except DataError as error:
            raise DataError(f"{row.where}: {error}") from None
        length = self._config.length
        self._lengths += map(len, whole)
        # Copies, or what was cut off would stay in memory.
        self._sequences += [tokens[:length].copy() for tokens in whole]
        self._labels.append(row.label)

    def examples(self) -> Examples:
        return Examples(self._config, self._sequences, self._labels, self._lengths)


@dataclasses.dataclass(frozen=True)
class ClassificationData:
    """All that a configuration names.

    Attributes:
      encoder: its `size` is that of the vocabulary.
      splits: the examples of each split that there is.
    """

    config: ClassificationDataConfig
    encoder: Encoder
    splits: Mapping[Split, Examples]

    def contents(self) -> dict[str, dict[str, str]]:
        """What the data holds, for the identity of a run: a digest for each split."""
        return {f"data.{name}": {"examples": found.digest} for name, found in self.splits.items()}

    def describe(self) -> Iterator[str]:
        """What a person wants to know before training, in sentences."""
        for name, examples in self.splits.items():
            cut = (
                f", {examples.cut:,} of them cut to data.length = {self.config.length}"
                if examples.cut
                else ""
            )
            what = ""
            if name == "validation" and self.config.validate_on_test:
                what = ", which are the test set (data.validate_on_test)"
            counts = np.bincount(examples.labels, minlength=self.config.classes).tolist()
            names = self.config.labels or map(str, range(self.config.classes))
            classes = describe_classes(dict(zip(names, counts)))
            yield f"{name}: {len(examples):,} examples ({classes}){cut}{what}."
        if self.config.encoding in IMAGE_ENCODINGS:
            return
        lengths = self.splits["train"].lengths.ravel().tolist()
        yield f"train: tokens of an input {describe_lengths(lengths)}."
        advice = advise_length(lengths, "inputs", "data.length", self.config.length)
        if advice is not None:
            yield f"train: {advice}."


def load_data(config: ClassificationDataConfig) -> ClassificationData:
    """Reads and encodes all splits.

    Raises:
      DataError: what `read_rows` finds, a file in two splits, or a split without an example.
    """
    check_splits(config)
    encoder = make_encoder(config, _training_texts(config))
    collected = {name: _Collector(config, encoder) for name in SPLITS}
    for name in SPLITS:
        if config.patterns(name):
            for row in read_rows(config, name):
                collected[split_of(row, config) if name == "train" else name].add(row)
    splits = {name: rows.examples() for name, rows in collected.items()}
    if config.validate_on_test:
        splits["validation"] = splits["test"]
    if not config.has_test:
        del splits["test"]
    for name, examples in splits.items():
        if not len(examples):
            setting = f"data.{name}" if config.patterns(name) else f"data.{name}_share"
            value = getattr(config, setting.removeprefix("data."))
            raise DataError(f"{setting} = {value!r}: gives no example; must give at least one")
    return ClassificationData(config, encoder, splits)


def with_names(config: ClassificationDataConfig) -> ClassificationDataConfig:
    """The configuration with what it leaves to the data: its alphabet, and names of classes that
    are names of folders. So what a run saves can be read without the data.

    Raises:
      DataError: as of `load_data`.
    """
    if config.encoding == "characters" and config.alphabet is None:
        check_splits(config)
        encoder = make_encoder(config, _training_texts(config))
        assert isinstance(encoder, Characters)
        return dataclasses.replace(config, alphabet=encoder.alphabet)
    if config.source == "image_folder" and not config.labels:
        return dataclasses.replace(config, labels=folder_labels(config))
    return config


def encode(
    config: ClassificationDataConfig, encoder: Encoder, inputs: Iterable[tuple[Any, ...]]
) -> Examples:
    """Examples of no known class.

    Args:
      inputs: of each example the texts, or one image in grey, uint8 [side, side].

    Raises:
      DataError: what cannot be encoded.
    """
    collector = _Collector(config, encoder)
    for number, values in enumerate(inputs):
        collector.add(Row(f"input {number}", values, 0))
    return collector.examples()


def _training_texts(config: ClassificationDataConfig) -> Iterator[str]:
    for row in read_rows(config, "train"):
        if split_of(row, config) == "train":
            yield from row.inputs
