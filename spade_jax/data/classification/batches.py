"""Batches of examples for training, whose position can be saved, and for evaluation."""

import json
import math
from collections.abc import Iterator

import numpy as np

from spade_jax.config import require
from spade_jax.data.batches import Arrays, HostRows, read_position, require_a_batch
from spade_jax.data.classification.config import Split
from spade_jax.data.classification.examples import ClassificationData, Examples
from spade_jax.data.config import DataError


def train_batches(
    data: ClassificationData, batch_size: int, *, shard_index: int = 0, num_shards: int = 1
) -> "TrainBatches":
    """Training batches without end, each epoch in another order.

    Args:
      batch_size: examples in a batch of this host.
      shard_index, num_shards: which of how many hosts this is. Each has rows of its own of the
        batches of all, so that these, and positions, are the same for any number of hosts.

    Raises:
      DataError: fewer examples than a batch of all hosts has.
    """
    host = HostRows(batch_size, shard_index, num_shards)
    require_a_batch(
        f"data.train = {data.config.train!r}",
        len(data.splits["train"]),
        "training examples",
        host.batch_of_all_hosts,
        "add examples, or lower the batch size",
    )
    return TrainBatches(data, host)


def evaluation_batches(
    data: ClassificationData,
    split: Split,
    batch_size: int,
    *,
    shard_index: int = 0,
    num_shards: int = 1,
    limit: int | None = None,
) -> "EvaluationBatches":
    """All examples of a split as batches, equal at every pass.

    Every host gets the same number of batches. Where examples run out, rows are zero, weights
    included, so that shapes never change.

    Args:
      batch_size: examples in a batch of this host.
      limit: the most batches of a pass; None for all.

    Raises:
      DataError: there is no such split.
    """
    host = HostRows(batch_size, shard_index, num_shards)
    require(limit is None or limit > 0, "limit", limit, "must be at least 1, or None for all")
    if split not in data.splits:
        raise DataError(f"data.{split} = '': names nothing; must name what to evaluate on")
    return EvaluationBatches(data.splits[split], host, limit)


class TrainBatches:
    """Endless training batches; `get_state` and `set_state` save and restore the position.

    Row r of step s of a batch of B rows is number i = s B + r of an endless stream, whose epochs
    are permutations of all n examples: epoch i // n, place i % n. A step's batch is a function of
    the examples, the seed and the step alone.
    """

    def __init__(self, data: ClassificationData, host: HostRows):
        self._examples = data.splits["train"]
        self._seed, self._host = data.config.seed, host
        self._definition = {
            "data": self._examples.digest,
            "settings": [data.config.length, data.config.mean, data.config.std],
            "encoding": data.encoder.digest,
            "seed": data.config.seed,
            "batch_of_all_hosts": host.batch_of_all_hosts,
        }
        self._step = 0
        self._epoch = -1
        self._order = np.zeros(0, np.int64)

    def __iter__(self) -> "TrainBatches":
        return self

    def __next__(self) -> Arrays:
        host, count = self._host, len(self._examples)
        first = self._step * host.batch_of_all_hosts + host.rows.start
        stream = range(first, first + host.batch_size)
        numbers = np.array([self._number(*divmod(i, count)) for i in stream])
        self._step += 1
        return self._examples.batch(numbers)

    def _number(self, epoch: int, place: int) -> int:
        """The example at a place of an epoch."""
        if epoch != self._epoch:
            # Of bits alone, which no version of numpy draws otherwise.
            bits = np.random.PCG64(np.random.SeedSequence([self._seed, epoch]))
            self._order = np.argsort(bits.random_raw(len(self._examples)), kind="stable")
            self._epoch = epoch
        return int(self._order[place])

    def get_state(self) -> bytes:
        """The position, some bytes of JSON: the same for any number of hosts."""
        return json.dumps({"step": self._step, **self._definition}).encode()

    def set_state(self, state: bytes) -> None:
        """Goes to a position that `get_state` gave, on whatever number of hosts.

        Raises:
          DataError: bytes that are no such position, or one of other data, seed or batch size.
        """
        words = "in examples of classification; must be of such a run"
        self._step = read_position(state, self._definition, words)["step"]


class EvaluationBatches:
    """The examples of a split; each `iter` is one pass over them. Made by `evaluation_batches`."""

    def __init__(self, examples: Examples, host: HostRows, limit: int | None):
        self._examples, self._host = examples, host
        batches = math.ceil(len(examples) / host.batch_of_all_hosts)
        self._batches = batches if limit is None else min(batches, limit)

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[Arrays]:
        size = self._host.batch_of_all_hosts
        for number in range(self._batches):
            last = min((number + 1) * size, len(self._examples))
            batch = self._examples.batch(np.arange(number * size, last))
            yield {name: self._host.of(values) for name, values in batch.items()}
