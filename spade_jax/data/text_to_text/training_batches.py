"""Training batches of pairs of texts: seqio Tasks, and the Mixture over them."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import seqio
import tensorflow_datasets as tfds

from spade_jax.data._tensorflow import tf
from spade_jax.data.batch_iterator import BatchIterator, iterate
from spade_jax.data.batches import HostRows, require_a_batch
from spade_jax.data.digests import digest
from spade_jax.data.metrics import score
from spade_jax.data.task_config import TaskConfig
from spade_jax.data.text_to_text.examples import load_table, make_pair
from spade_jax.data.text_to_text.splits import Part, find_builder, parts
from spade_jax.data.text_to_text.values import python_value
from spade_jax.data.vocabulary import load_vocabulary


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
        dataset = find_builder(task, self._config).as_dataset(
            split=shards[shard_info.index],
            shuffle_files=shuffle,
            read_config=tfds.ReadConfig(shuffle_seed=seed, try_autocache=False),
        )

        def pair(*values: Any) -> tuple[bytes, bytes]:
            row = {column: python_value(value) for column, value in zip(columns, values)}
            made = make_pair(row, f"{task.tfds}, {self._part.source}", 0, self._part, self._config)
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


def _training(config: TaskConfig) -> dict[str, Any]:
    """What of a configuration decides what training reads."""
    found = dataclasses.asdict(config) | {"test": ""}
    if not config.holds_out:
        # Positions that there are know no seed of what is held out.
        del found["split_seed"]
        found["validation"] = ""
    return found


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

    Batches hold what those of pre-training do; packed ones also the arrays of these, see
    `objectives.seq2seq_batch`.

    Args:
      batch_size: examples (packed: rows) in a batch of this host.
      sizes: examples of each task, as `examine` counts them.
      shard_index, num_shards: which of how many hosts this is. All read everything, and each has
        rows of its own of the batches of all: so that these, and positions, are the same for any
        number of hosts.

    Raises:
      DataError: fewer examples than a batch has.
    """
    host = HostRows(batch_size, shard_index, num_shards)
    sizes = list(sizes)
    require_a_batch(
        f"task.train = {config.train!r}",
        sum(sizes),
        "training examples",
        host.batch_of_all_hosts,
        "add examples, or lower train.batch_size",
    )
    mixture = pair_mixture(config, sizes)
    lengths = {"inputs": config.input_length, "targets": config.target_length}
    # A position is made of row numbers: in other tables they would mean other rows. That `Pair` and
    # its fields are called so is part of the positions that there are.
    tables = hashlib.sha256()
    for part in parts(config, "train"):
        if isinstance(part.source, tuple):
            for pair in load_table(part, config):
                tables.update(repr(pair).encode("utf-8"))
    return iterate(
        mixture,
        lambda dataset: seqio.EncDecFeatureConverter(pack=config.pack)(dataset, lengths),
        host.batch_of_all_hosts,
        seed=config.seed,
        data=digest(_training(config), load_vocabulary(config).digest, tables.hexdigest()),
        where=f"task.train ({config.name})",
        rows=host.rows,
    )
