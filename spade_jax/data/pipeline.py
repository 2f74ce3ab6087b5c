"""Batches for training, whose position can be saved, and for validation, the same every time.

Batches are dictionaries of numpy arrays, as `objectives.seq2seq_batch` defines them: `input_length`
inputs and `decoder_length` targets in each row, which all count but for padding.
"""

import contextlib
import io
import itertools
import json
import pathlib
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import seqio

from spade_jax.config import require
from spade_jax.data._tensorflow import NumpyIterator, tf
from spade_jax.data.cache.batches import CachedBatches, CachedValidation, cached_train_batches
from spade_jax.data.cache.manifest import open_cache
from spade_jax.data.config import DataConfig, DataError, require_same_data
from spade_jax.data.sources import (
    DocumentSource,
    check_sources,
    digest_sources,
    name_sources,
    streaming_error,
)
from spade_jax.data.tasks import denoising_mixture, digest
from spade_jax.data.vocabulary import load_vocabulary

Batch = dict[str, np.ndarray]

VALIDATION_SEED = 20221215
_MANIFEST = "position.json"


# Nothing here needs TensorFlow to translate Python into graphs, which takes it seconds.
_without_autograph = tf.autograph.experimental.do_not_convert


@_without_autograph
def train_batches(
    config: DataConfig, batch_size: int, *, shard_index: int = 0, num_shards: int = 1
) -> "BatchIterator | CachedBatches":
    """Training batches without end, each epoch in another order; of `config.cache` if it is set.

    Args:
      batch_size: examples in a batch of this host.
      shard_index, num_shards: which of how many hosts this is. Each reads documents of its own:
        whole files if there are at least as many as hosts, else every num_shards-th document.
        Of a cache each reads rows of its own of the batches of all.

    Raises:
      DataError: data that cannot be read, or fewer examples in an epoch than in a batch.
    """
    _require_shard(batch_size, shard_index, num_shards)
    if config.cache is not None:
        return cached_train_batches(config, batch_size, shard_index, num_shards)
    check_sources(config.sources, "train")
    mixture = denoising_mixture(config)
    _require_a_batch(config, batch_size, seqio.ShardInfo(shard_index, num_shards))
    return iterate(
        mixture,
        lambda dataset: _converted(dataset, config),
        batch_size,
        seed=config.seed,
        data=digest(config, load_vocabulary(config).digest),
        where=name_sources(task.source for task in mixture.tasks),
        shard_index=shard_index,
        num_shards=num_shards,
    )


def digest_data(config: DataConfig) -> dict[str, dict[str, str]]:
    """For each setting what the data is read from, each with a digest of what it holds.

    Raises:
      DataError: something is not there or cannot be read.
    """
    if config.cache is None:
        return digest_sources(config.sources)
    manifest = open_cache(config, load_vocabulary(config).digest)
    return {"data.cache": {file.name: f"{file.crc32:08x}" for file in manifest.files}}


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


def validation_batches(
    config: DataConfig,
    batch_size: int,
    *,
    shard_index: int = 0,
    num_shards: int = 1,
    limit: int | None = None,
) -> "ValidationBatches | CachedValidation":
    """All validation text as batches, equal at every pass and whatever `config.seed` is.

    Every host gets the same number of batches. Where examples run out, rows are zero, loss
    weights included, so that shapes never change. Each source is read once for each denoiser.

    Args:
      batch_size: examples in a batch of this host.
      limit: the most batches of a pass; None for all.

    Raises:
      DataError: no source has validation text, or it cannot be read.
    """
    _require_shard(batch_size, shard_index, num_shards)
    require(limit is None or limit > 0, "limit", limit, "must be at least 1, or None for all")
    if config.cache is not None:
        return CachedValidation(config, batch_size, shard_index, num_shards, limit, VALIDATION_SEED)
    return ValidationBatches(config, batch_size, shard_index, num_shards, limit)


def _require_shard(batch_size: int, shard_index: int, num_shards: int) -> None:
    require(batch_size > 0, "batch_size", batch_size, "must be at least 1")
    require(num_shards > 0, "num_shards", num_shards, "must be at least 1")
    require(
        0 <= shard_index < num_shards,
        "shard_index",
        shard_index,
        f"must be at least 0 and below num_shards = {num_shards}",
    )


def _converted(dataset: tf.data.Dataset, config: DataConfig) -> tf.data.Dataset:
    """Padded examples under the names a model knows them by."""
    lengths = {"inputs": config.input_length, "targets": config.decoder_length}
    return seqio.EncDecFeatureConverter(pack=False)(dataset, task_feature_lengths=lengths)


def _require_a_batch(config: DataConfig, batch_size: int, shard: seqio.ShardInfo) -> None:
    """Reads as much of one epoch as shows that it fills a batch."""
    vocabulary = load_vocabulary(config)
    length = min(denoiser.segment_length(config.input_length) for denoiser in config.denoisers)
    examples = 0
    for source_config in config.sources:
        source = DocumentSource(source_config)
        documents = NumpyIterator(source.get_dataset("train", shuffle=False, shard_info=shard))
        tokens = 0
        try:
            for document in documents:
                tokens += len(vocabulary.encode(document["text"].decode("utf-8", "replace")))
                if tokens >= batch_size * length:
                    break
        except tf.errors.OpError as error:
            raise streaming_error(error, name_sources([source])) from None
        if tokens == 0:
            raise DataError(
                f"data.sources.train = {source_config.train!r}: no document for host "
                f"{shard.index} of {shard.num_shards}; must have at least as many as there are "
                "hosts"
            )
        examples += -(-tokens // length)
    if examples < batch_size:
        raise DataError(
            f"data.sources: {examples} training examples in an epoch (of host {shard.index} of "
            f"{shard.num_shards}), but a batch of {batch_size}; must have at least one batch: add "
            "text, or lower the batch size or data.input_length"
        )


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
        self._where = where
        self._rows = rows
        self._iterator = NumpyIterator(dataset.prefetch(2))

    def __iter__(self) -> "BatchIterator":
        return self

    def __next__(self) -> Batch:
        try:
            return {name: values[self._rows] for name, values in next(self._iterator).items()}
        except tf.errors.OpError as error:
            raise streaming_error(error, self._where) from None

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


class ValidationBatches:
    """The validation text; each `iter` is one pass over it. Made by `validation_batches`."""

    @_without_autograph
    def __init__(
        self,
        config: DataConfig,
        batch_size: int,
        shard_index: int,
        num_shards: int,
        limit: int | None,
    ):
        check_sources(config.sources, "validation")
        mixture = denoising_mixture(config)
        tasks = [task for task in mixture.tasks if "validation" in task.splits]
        if not tasks:
            raise DataError(
                "data.sources.validation = '': no source has validation text; must name files or "
                "a TFDS split for at least one"
            )
        self._where = name_sources(task.source for task in tasks)
        self._limit = limit
        self._rows = slice(shard_index * batch_size, (shard_index + 1) * batch_size)
        dataset = tasks[0].get_dataset(split="validation", shuffle=False, seed=VALIDATION_SEED)
        for task in tasks[1:]:
            more = task.get_dataset(split="validation", shuffle=False, seed=VALIDATION_SEED)
            dataset = dataset.concatenate(more)
        self._batch_of_all_hosts = batch_size * num_shards
        self._dataset = _converted(dataset, config).batch(self._batch_of_all_hosts)

    def __iter__(self) -> Iterator[Batch]:
        try:
            for batch in itertools.islice(NumpyIterator(self._dataset), self._limit):
                yield {name: self._own_rows(rows) for name, rows in batch.items()}
        except tf.errors.OpError as error:
            raise streaming_error(error, self._where) from None

    def _own_rows(self, rows: np.ndarray) -> np.ndarray:
        """This host's rows of a batch of all hosts, zeros where examples have run out."""
        missing = self._batch_of_all_hosts - len(rows)
        return np.pad(rows, [(0, missing)] + [(0, 0)] * (rows.ndim - 1))[self._rows]
