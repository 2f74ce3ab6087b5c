"""Batches for training, whose position can be saved, and for validation, the same every time.

Batches are dictionaries of numpy arrays, as `objectives` defines them: of span corruption
`seq2seq_batch`, with `input_length` inputs and `decoder_length` targets in each row; of blocks of
text `causal_lm_batch`. All targets count but for padding.
"""

import dataclasses
import itertools
from collections.abc import Iterator

import seqio

from spade_jax.config import require
from spade_jax.data._tensorflow import NumpyIterator, tf
from spade_jax.data.batch_iterator import BatchIterator, iterate
from spade_jax.data.batches import MORE_TEXT, Arrays, HostRows, require_a_batch
from spade_jax.data.blocks import blocks_mixture, padded
from spade_jax.data.cache.batches import CachedBatches, CachedValidation, cached_train_batches
from spade_jax.data.cache.manifest import open_cache
from spade_jax.data.config import DataConfig, DataError, TextBlocksConfig, TextConfig
from spade_jax.data.denoising import denoising_mixture
from spade_jax.data.digests import digest
from spade_jax.data.sources import DocumentSource, check_sources, digest_sources, name_sources
from spade_jax.data.vocabulary import load_vocabulary

VALIDATION_SEED = 20221215


# Nothing here needs TensorFlow to translate Python into graphs, which takes it seconds.
_without_autograph = tf.autograph.experimental.do_not_convert


@_without_autograph
def train_batches(
    config: TextConfig, batch_size: int, *, shard_index: int = 0, num_shards: int = 1
) -> BatchIterator | CachedBatches:
    """Training batches without end, each epoch in another order; of `config.cache` if it is set.

    Args:
      batch_size: examples in a batch of this host.
      shard_index, num_shards: which of how many hosts this is. Each reads documents of its own:
        whole files if there are at least as many as hosts, else every num_shards-th document.
        Of a cache each reads rows of its own of the batches of all.

    Raises:
      DataError: data that cannot be read, or fewer examples in an epoch than in a batch.
    """
    host = HostRows(batch_size, shard_index, num_shards)
    if isinstance(config, DataConfig) and config.cache is not None:
        return cached_train_batches(config, host)
    check_sources(config.sources, "train")
    mixture = _mixture(config)
    _require_an_epoch(config, host)
    definition = {n: value for n, value in dataclasses.asdict(config).items() if n != "kind"}
    return iterate(
        mixture,
        lambda dataset: _converted(dataset, config),
        batch_size,
        seed=config.seed,
        data=digest(definition, load_vocabulary(config).digest),
        where=name_sources(task.source for task in mixture.tasks),
        shard_index=shard_index,
        num_shards=num_shards,
    )


def digest_data(config: TextConfig) -> dict[str, dict[str, str]]:
    """For each setting what the data is read from, each with a digest of what it holds.

    Raises:
      DataError: something is not there or cannot be read.
    """
    if not isinstance(config, DataConfig) or config.cache is None:
        return digest_sources(config.sources)
    manifest = open_cache(config, load_vocabulary(config).digest)
    return {"data.cache": {file.name: f"{file.crc32:08x}" for file in manifest.files}}


def validation_batches(
    config: TextConfig,
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
    host = HostRows(batch_size, shard_index, num_shards)
    require(limit is None or limit > 0, "limit", limit, "must be at least 1, or None for all")
    if isinstance(config, DataConfig) and config.cache is not None:
        return CachedValidation(config, host, limit, VALIDATION_SEED)
    return ValidationBatches(config, host, limit)


def _mixture(config: TextConfig) -> seqio.Mixture:
    if isinstance(config, TextBlocksConfig):
        return blocks_mixture(config)
    assert isinstance(config, DataConfig)
    return denoising_mixture(config)


def _converted(dataset: tf.data.Dataset, config: TextConfig) -> tf.data.Dataset:
    """Padded examples under the names a model knows them by."""
    if isinstance(config, TextBlocksConfig):
        return padded(dataset, config.input_length)
    assert isinstance(config, DataConfig)
    lengths = {"inputs": config.input_length, "targets": config.decoder_length}
    return seqio.EncDecFeatureConverter(pack=False)(dataset, task_feature_lengths=lengths)


def _require_an_epoch(config: TextConfig, host: HostRows) -> None:
    """Reads as much of one epoch as shows that it fills a batch."""
    shard = seqio.ShardInfo(host.shard_index, host.num_shards)
    of_host = f"host {host.shard_index} of {host.num_shards}"
    vocabulary = load_vocabulary(config)
    length = _segment_length(config)
    examples = 0
    for source_config in config.sources:
        source = DocumentSource(source_config)
        documents = source.get_dataset("train", shuffle=False, shard_info=shard)
        tokens = 0
        for document in NumpyIterator(documents, name_sources([source])):
            tokens += len(vocabulary.encode(document["text"].decode("utf-8", "replace")))
            if tokens >= host.batch_size * length:
                break
        if tokens == 0:
            raise DataError(
                f"data.sources.train = {source_config.train!r}: no document for {of_host}; must "
                "have at least as many as there are hosts"
            )
        examples += -(-tokens // length)
    what = f"training examples in an epoch (of {of_host})"
    require_a_batch("data.sources", examples, what, host.batch_size, MORE_TEXT)


def _segment_length(config: TextConfig) -> int:
    """The tokens of text of which an example is made, or of the shortest ones."""
    if isinstance(config, TextBlocksConfig):
        return config.input_length
    assert isinstance(config, DataConfig)
    return min(denoiser.segment_length(config.input_length) for denoiser in config.denoisers)


class ValidationBatches:
    """The validation text; each `iter` is one pass over it. Made by `validation_batches`."""

    @_without_autograph
    def __init__(self, config: TextConfig, host: HostRows, limit: int | None):
        check_sources(config.sources, "validation")
        mixture = _mixture(config)
        tasks = [task for task in mixture.tasks if "validation" in task.splits]
        if not tasks:
            raise DataError(
                "data.sources.validation = '': no source has validation text; must name files or "
                "a TFDS split for at least one"
            )
        self._where = name_sources(task.source for task in tasks)
        self._limit = limit
        self._host = host
        dataset = tasks[0].get_dataset(split="validation", shuffle=False, seed=VALIDATION_SEED)
        for task in tasks[1:]:
            more = task.get_dataset(split="validation", shuffle=False, seed=VALIDATION_SEED)
            dataset = dataset.concatenate(more)
        self._dataset = _converted(dataset, config).batch(host.batch_of_all_hosts)

    def __iter__(self) -> Iterator[Arrays]:
        batches = NumpyIterator(self._dataset, self._where)
        for batch in itertools.islice(batches, self._limit):
            yield {name: self._host.of(values) for name, values in batch.items()}
