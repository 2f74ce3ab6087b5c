"""Batches of a seqio Mixture without end, whose position in tf.data can be saved."""

import contextlib
import io
import json
import pathlib
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import seqio

from spade_jax.data._tensorflow import NumpyIterator, tf
from spade_jax.data.batches import Arrays, require_same_data
from spade_jax.data.config import DataError

_MANIFEST = "position.json"


def iterate(
    mixture: seqio.Mixture,
    convert: Callable[[tf.data.Dataset], tf.data.Dataset],
    batch_size: int,
    *,
    seed: int,
    data: str,
    where: str,
    shard_index: int = 0,
    num_shards: int = 1,
    rows: slice = slice(None),
) -> "BatchIterator":
    """Batches of a mixture's training examples without end.

    Args:
      convert: examples -> what the model takes.
      data: a name for the data; positions in other data are refused.
      where: what messages about its reading begin with.
      shard_index, num_shards: which examples are read.
      rows: of each batch those that are wanted; positions are the same whichever they are.
    """
    # Hosts differ in their examples, and so may differ in seed: else row i of every host would be
    # masked alike.
    own_seed = int(np.random.SeedSequence([seed, shard_index]).generate_state(1)[0] >> 1)
    dataset = mixture.get_dataset(
        split="train",
        shuffle=True,
        seed=own_seed,
        shard_info=seqio.ShardInfo(shard_index, num_shards),
        num_epochs=None,
    )
    definition = {
        "data": data,
        "batch_size": batch_size,
        "shard_index": shard_index,
        "num_shards": num_shards,
    }
    batches = convert(dataset).batch(batch_size, drop_remainder=True)
    return BatchIterator(batches, definition, where, rows)


class BatchIterator:
    """Endless training batches; `get_state` and `set_state` save and restore the position.

    Two iterators of equal data give equal batches, and so does one that was given the other's
    state, in another process as well: shuffle buffers, epochs and the randomness of masking are
    all part of a position.

    Args:
      dataset: batches without end.
      definition: JSON values that tell data of other positions apart.
      where: what messages about its reading begin with.
      rows: of each batch those that are wanted.
    """

    def __init__(
        self, dataset: tf.data.Dataset, definition: dict[str, Any], where: str, rows: slice
    ):
        self._definition = definition
        self._rows = rows
        self._iterator = NumpyIterator(dataset.prefetch(2), where)

    def __iter__(self) -> "BatchIterator":
        return self

    def __next__(self) -> Arrays:
        return {name: values[self._rows] for name, values in next(self._iterator).items()}

    def get_state(self) -> bytes:
        """The position: what `set_state` needs to go on with the batch that comes next."""
        packed = io.BytesIO()
        with (
            tempfile.TemporaryDirectory() as directory,
            zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        ):
            tf.train.Checkpoint(iterator=self._iterator.position).write(f"{directory}/position")
            archive.writestr(_MANIFEST, json.dumps(self._definition))
            for path in sorted(pathlib.Path(directory).iterdir()):
                archive.write(path, path.name)
        return packed.getvalue()

    def set_state(self, state: bytes) -> None:
        """Goes to a position that `get_state` gave.

        Raises:
          DataError: bytes that are no such position, or one of other data, batch size or hosts.
        """
        with tempfile.TemporaryDirectory() as directory, _damage_named(state):
            archive = zipfile.ZipFile(io.BytesIO(state))
            definition = dict(json.loads(archive.read(_MANIFEST)))
            archive.extractall(directory)
            require_same_data(definition, self._definition)
            checkpoint = tf.train.Checkpoint(iterator=self._iterator.position)
            checkpoint.read(f"{directory}/position").assert_consumed()


@contextlib.contextmanager
def _damage_named(state: bytes) -> Iterator[None]:
    """What zipfile, zlib, json and TensorFlow say of bytes that are no position, as DataError."""
    try:
        yield
    except (DataError, OSError):  # The latter is of the disk that it is unpacked to.
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"position in the data: {len(state)} bytes, damaged ({reason:.100})"
        ) from None
