"""Pairs of texts as seqio Tasks to train on, and as examples to evaluate on."""

import collections
import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import seqio
import tensorflow_datasets as tfds
from etils import epath

from spade_jax.config import require
from spade_jax.data import prepared
from spade_jax.data._tensorflow import tf
from spade_jax.data.config import DataError
from spade_jax.data.metrics import score
from spade_jax.data.pipeline import BatchIterator, iterate
from spade_jax.data.rows import python_value, read_rows
from spade_jax.data.sources import SHIPPED_TEXT, glob_files
from spade_jax.data.task_config import TaskConfig
from spade_jax.data.tasks import digest
from spade_jax.data.text_to_text import Row, RowError, Split, TextToText
from spade_jax.data.vocabulary import load_vocabulary
from spade_jax.data.writable import Losses, PairTokenizer, check_measured, check_words

# Training examples that are looked at to say how many are cut off, and for the baseline.
_EXAMINED = 10_000


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
            sources = _tables(config, task, split)
        elif task.tfds is None:
            sources = [(str(SHIPPED_TEXT / f"sotu.{name}.jsonl.gz"),) for name in names]
        else:
            there = _builder(task, config).info.splits
            sources = [name if name in there else () for name in names]
        for number, (name, source) in enumerate(zip(task.part_names(split), sources)):
            if source:
                found.append(Part(name, task, split, number, source))
    return found


def _tables(config: TaskConfig, task: TextToText, split: Split) -> list[str | tuple[str, ...]]:
    """The files of each of a task's parts."""
    setting, names = f"task.{split}", task.splits.get(split, ())
    patterns = [pattern.replace("{task}", task.name) for pattern in config.patterns(split)]
    if not patterns or not names:
        return []
    if len(names) == 1:
        return [tuple(glob_files([p.replace("{part}", "") for p in patterns], setting))]
    if len(patterns) == 1 and "{part}" in patterns[0]:
        # Of validation_matched it is "_matched", as in the names of MNLI's own files.
        kinds = [name.removeprefix(split) for name in names]
        patterns = [patterns[0].replace("{part}", kind) for kind in kinds]
    require(
        len(patterns) == len(names),
        setting,
        getattr(config, split),
        f"must name a table for each of {', '.join(names)}, or have {{part}} in its name",
    )
    return [tuple(glob_files([pattern], setting)) for pattern in patterns]


def _builder(task: TextToText, config: TaskConfig) -> tfds.core.DatasetBuilder:
    builder = prepared.find_builder(str(task.tfds), config.data_dir, "task")
    for column in (*task.columns, task.target):
        if column not in builder.info.features:
            raise DataError(
                f"{task.tfds}: has no column {column!r}, but {', '.join(builder.info.features)}"
            )
    return builder


def read_pairs(part: Part, config: TaskConfig) -> Iterator[Pair]:
    """All pairs of a part, in order.

    Raises:
      DataError: a row that makes none, with where it stands.
    """
    if isinstance(part.source, tuple):
        yield from _read_tables(part, config)
        return
    rows = _builder(part.task, config).as_dataset(
        split=part.source, read_config=tfds.ReadConfig(try_autocache=False)
    )
    for number, row in enumerate(rows.as_numpy_iterator()):
        where = f"{part.task.tfds}, {part.source} {number}"
        row = {column: python_value(value) for column, value in row.items()}
        yield _pair(row, where, number, part, config)


def _read_tables(part: Part, config: TaskConfig) -> Iterator[Pair]:
    task = part.task
    number = 0
    for path in part.source:
        for where, row in read_rows(path, config.header, task.columns):
            for piece in task.expand(row):
                yield _pair(piece, where, number, part, config)
                number += 1


def check_tables(config: TaskConfig, split: Split) -> list[tuple[Part, Losses]]:
    """Reads the tables of a split through, for what is lost of the targets of each part.

    Raises:
      DataError: a row that makes no pair.
    """
    found = []
    for part in parts(config, split):
        if isinstance(part.source, tuple):
            tokenizer = _tokenizer(config)
            for pair in read_pairs(part, config):
                tokenizer(pair.input, pair.target)
            found.append((part, tokenizer.losses))
    return found


def _tokenizer(config: TaskConfig) -> PairTokenizer:
    return PairTokenizer(load_vocabulary(config), config.input_length, config.target_length)


def _pair(row: Row, where: str, number: int, part: Part, config: TaskConfig) -> Pair:
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
    assert isinstance(part.source, tuple)
    states = [epath.Path(path).stat() for path in part.source]
    versions = tuple((state.length, state.mtime) for state in states)
    return _load_table(part.task.name, part.source, part.split, config, versions)


@functools.lru_cache(maxsize=32)
def _load_table(
    name: str, files: tuple[str, ...], split: Split, config: TaskConfig, versions: tuple
) -> list[Pair]:
    """`versions` make sure that files which have changed are read again."""
    task = next(task for task in config.tasks if task.name == name)
    return list(read_pairs(Part(name, task, split, 0, files), config))


class PairSource(seqio.DataSource):
    """Training examples with bytes [] `inputs` and `targets`, of one task."""

    def __init__(self, part: Part, config: TaskConfig):
        self._part = part
        self._config = config
        super().__init__(["train"])

    @property
    def supports_arbitrary_sharding(self) -> bool:
        return True

    def list_shards(self, split: str) -> list[str]:
        return [self._part.source] if isinstance(self._part.source, str) else [*self._part.source]

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        **unused: Any,
    ) -> tf.data.Dataset:
        shard_info = shard_info or seqio.ShardInfo(index=0, num_shards=1)
        if isinstance(self._part.source, str):
            pairs = self._read_prepared(shuffle, seed, shard_info)
        else:
            pairs = self._read_table(shuffle, seed, shard_info)
        return pairs.map(lambda inputs, targets: {"inputs": inputs, "targets": targets})

    def _read_table(
        self, shuffle: bool, seed: int | None, shard_info: seqio.ShardInfo
    ) -> tf.data.Dataset:
        table = load_table(self._part, self._config)

        def read(number: int) -> tuple[bytes, bytes]:
            return table[number].input.encode("utf-8"), table[number].target.encode("utf-8")

        rows = tf.data.Dataset.range(shard_info.index, len(table), shard_info.num_shards)
        if shuffle:
            # All of them at once, for tables are often sorted; their numbers take little room.
            rows = rows.shuffle(len(table), seed=seed)
        return rows.map(lambda number: _two_texts(read, [number]))

    def _read_prepared(
        self, shuffle: bool, seed: int | None, shard_info: seqio.ShardInfo
    ) -> tf.data.Dataset:
        task = self._part.task
        columns = (*task.columns, task.target)
        shards = tfds.even_splits(self._part.source, shard_info.num_shards)
        dataset = _builder(task, self._config).as_dataset(
            split=shards[shard_info.index],
            shuffle_files=shuffle,
            read_config=tfds.ReadConfig(shuffle_seed=seed, try_autocache=False),
        )

        def pair(*values: Any) -> tuple[bytes, bytes]:
            row = {column: python_value(value) for column, value in zip(columns, values)}
            made = _pair(row, f"{task.tfds}, {self._part.source}", 0, self._part, self._config)
            return made.input.encode("utf-8"), made.target.encode("utf-8")

        def write(row: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
            values = [row[column] for column in columns]
            return _two_texts(pair, values)

        pairs = dataset.map(write)
        # Of texts, for they are smaller than their tokens: all of it is part of a position.
        return pairs.shuffle(self._config.shuffle_buffer, seed=seed) if shuffle else pairs


def _two_texts(
    function: Callable[..., tuple[bytes, bytes]], values: list[tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    inputs, targets = tf.numpy_function(function, values, [tf.string] * 2, stateful=False)
    return tf.ensure_shape(inputs, []), tf.ensure_shape(targets, [])


def _training(config: TaskConfig) -> TaskConfig:
    """What of a configuration decides what training reads."""
    return dataclasses.replace(config, validation="", test="")


def pair_task(part: Part, config: TaskConfig) -> seqio.Task:
    """Registers, or finds, the Task of a part that is for training."""
    vocabulary = load_vocabulary(config)
    task = part.task
    name = f"{task.name}_{digest(part.source, _training(config), vocabulary.digest)}"
    if name in seqio.TaskRegistry.names():
        return seqio.TaskRegistry.get(name)

    def tokens(text: bytes, target: bytes) -> tuple[np.ndarray, np.ndarray]:
        pair = ((text, config.input_length), (target, config.target_length))
        inputs, targets = (
            np.array(vocabulary.ended(vocabulary.tokens(part.decode("utf-8")), length), np.int32)
            for part, length in pair
        )
        return inputs, targets

    def tokenize(dataset: tf.data.Dataset) -> tf.data.Dataset:
        def tokenize_pair(pair: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            # In Python, and so as evaluation and decoding do; as quick as TensorFlow's own.
            made = tf.numpy_function(
                tokens, [pair["inputs"], pair["targets"]], [tf.int32] * 2, stateful=False
            )
            inputs, targets = (tf.ensure_shape(ids, [None]) for ids in made)
            return {"inputs": inputs, "targets": targets}

        return dataset.map(tokenize_pair, num_parallel_calls=tf.data.AUTOTUNE)

    def measure(targets: list[str], predictions: list[str]) -> dict[str, float]:
        return score(task.metrics, targets, predictions, task.labels)

    feature = seqio.Feature(vocabulary.seqio, add_eos=True)
    return seqio.TaskRegistry.add(
        name,
        source=PairSource(part, config),
        preprocessors=[tokenize],
        output_features={"inputs": feature, "targets": feature},
        metric_fns=[measure],
        shuffle_buffer_size=1,  # The source has shuffled.
    )


def pair_mixture(config: TaskConfig, sizes: Iterable[int]) -> seqio.Mixture:
    """Registers, or finds, the Mixture of all tasks, each by its number of examples."""
    tasks = [pair_task(part, config) for part in parts(config, "train")]
    rates = [(task.name, float(size)) for task, size in zip(tasks, sizes, strict=True)]
    name = "pairs_mixture_" + digest(rates)
    if name in seqio.MixtureRegistry.names():
        return seqio.MixtureRegistry.get(name)
    return seqio.MixtureRegistry.add(name, rates)


def train_pairs(
    config: TaskConfig,
    batch_size: int,
    sizes: Iterable[int],
    *,
    shard_index: int = 0,
    num_shards: int = 1,
) -> BatchIterator:
    """Training batches without end, each epoch in another order.

    Batches hold what those of pre-training do; packed ones also `encoder_segment_ids`,
    `decoder_segment_ids` and `decoder_positions`, and the same of the encoder.

    Args:
      batch_size: examples (packed: rows) in a batch of this host.
      sizes: examples of each task, as `examine` counts them.
      shard_index, num_shards: which of how many hosts this is. All read everything, and each has
        rows of its own of the batches of all: so that these, and positions, are the same for any
        number of hosts.

    Raises:
      DataError: fewer examples than a batch has.
    """
    sizes = list(sizes)
    batch_of_all_hosts = batch_size * num_shards
    if sum(sizes) < batch_of_all_hosts:
        raise DataError(
            f"task.train = {config.train!r}: {sum(sizes)} training examples, but a batch of "
            f"{batch_of_all_hosts}; must have at least one batch: add examples, or lower "
            "train.batch_size"
        )
    mixture = pair_mixture(config, sizes)
    lengths = {"inputs": config.input_length, "targets": config.target_length}
    # A position is made of row numbers: in other tables they would mean other rows.
    tables = hashlib.sha256()
    for part in parts(config, "train"):
        if isinstance(part.source, tuple):
            for pair in load_table(part, config):
                tables.update(repr(pair).encode("utf-8"))
    return iterate(
        mixture,
        lambda dataset: seqio.EncDecFeatureConverter(pack=config.pack)(dataset, lengths),
        batch_of_all_hosts,
        seed=config.seed,
        data=digest(_training(config), load_vocabulary(config).digest, tables.hexdigest()),
        where=f"task.train ({config.name})",
        rows=slice(shard_index * batch_size, (shard_index + 1) * batch_size),
    )


@dataclasses.dataclass(frozen=True)
class Examined:
    """What a look at the training examples of one part finds.

    Attributes:
      examples: how many there are.
      looked_at: how many of them were tokenised.
      cut_inputs, cut_targets: those of them that are too long.
      commonest: the most common target, as the vocabulary writes it.
      target_words: of a target, on average.
      losses: what the vocabulary takes from those looked at.
    """

    part: Part
    examples: int
    looked_at: int
    cut_inputs: int
    cut_targets: int
    commonest: str
    target_words: float
    losses: Losses = dataclasses.field(default_factory=Losses)


def examine(config: TaskConfig) -> list[Examined]:
    """Looks at the training examples of each task: all of local tables, the first of TFDS's.

    Raises:
      DataError: a row that makes no pair.
    """
    found = []
    for part in parts(config, "train"):
        if isinstance(part.source, str):
            pairs = list(itertools.islice(read_pairs(part, config), _EXAMINED))
            examples = _builder(part.task, config).info.splits[part.source].num_examples
        else:
            pairs = load_table(part, config)
            examples = len(pairs)
        # Evenly spread, for tables are often sorted.
        sample = pairs[:: max(1, -(-len(pairs) // _EXAMINED))]
        tokenizer = _tokenizer(config)
        for pair in sample:
            tokenizer(pair.input, pair.target)
        targets = collections.Counter(pair.target for pair in pairs)
        commonest = max(targets, key=targets.__getitem__, default="")
        found.append(
            Examined(
                part,
                examples,
                looked_at=len(sample),
                cut_inputs=tokenizer.cut_inputs,
                cut_targets=tokenizer.cut_targets,
                commonest=tokenizer.vocabulary.rewritten(commonest),
                target_words=sum(len(p.target.split()) for p in pairs) / max(len(pairs), 1),
                losses=tokenizer.losses,
            )
        )
    return found


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """The examples of one part, tokenised.

    Attributes:
      pairs: in the order of the data.
      inputs, targets: int32 token ids, their ends included, cut off where too long.
      cut_inputs, cut_targets: how many were.
      references: the targets, uncut, as the vocabulary writes them: what it changes or lacks, no
        prediction could have right, so that predictions are compared with these.
      losses: what the vocabulary takes from them.
    """

    part: Part
    pairs: list[Pair]
    inputs: list[np.ndarray]
    targets: list[np.ndarray]
    cut_inputs: int
    cut_targets: int
    references: list[str]
    losses: Losses = dataclasses.field(default_factory=Losses)

    @property
    def labelled(self) -> bool:
        return any(pair.target for pair in self.pairs)


def evaluation_sets(
    config: TaskConfig, split: Split, limit: int | None = None
) -> list[EvaluationSet]:
    """The examples of a split, of each task apart.

    Args:
      limit: the most of each, evenly spread over all that there are; None for all.

    Raises:
      DataError: a row that makes no pair.
    """
    sets = []
    for part in parts(config, split):
        pairs = list(read_pairs(part, config))
        secret = sum(not pair.target for pair in pairs)
        if secret not in (0, len(pairs)):
            raise DataError(
                f"task.{split} ({part.name}): {secret} of {len(pairs)} rows have no target; must "
                "be all or none"
            )
        if limit is not None and len(pairs) > limit:
            pairs = [pairs[i * len(pairs) // limit] for i in range(limit)]
        tokenizer = _tokenizer(config)
        tokens = [tokenizer(pair.input, pair.target) for pair in pairs]
        sets.append(
            EvaluationSet(
                part,
                pairs,
                [np.array(found.inputs, np.int32) for found in tokens],
                [np.array(found.targets, np.int32) for found in tokens],
                tokenizer.cut_inputs,
                tokenizer.cut_targets,
                [found.reference for found in tokens],
                tokenizer.losses,
            )
        )
    return sets
