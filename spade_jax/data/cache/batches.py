"""Batches from a cache: the batch of a step is a function of the settings and the step alone.

Grain reads segments at random: a permutation of all segments for each epoch, masks by epoch and
place, mixtures by place. Nothing is held back or replayed, and hosts share the rows of one stream.
"""

import functools
import itertools
import json
import math
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grain
import numpy as np

from spade_jax.data.batches import MORE_TEXT, Arrays, HostRows, read_position, require_a_batch
from spade_jax.data.cache.manifest import Manifest, SegmentFile, open_cache
from spade_jax.data.config import DataConfig, DataError, DenoiserConfig, Split
from spade_jax.data.digests import digest
from spade_jax.data.span_corruption import corrupted
from spade_jax.data.vocabulary import Vocabulary, load_vocabulary
from spade_jax.objectives.seq2seq_batch import Seq2SeqBatch

# Batches prepared ahead. More threads would fight for the interpreter: half as many rows a second.
_READ_AHEAD = grain.ReadOptions(num_threads=1, prefetch_buffer_size=8)


def cached_train_batches(config: DataConfig, host: HostRows) -> "CachedBatches":
    """Training batches without end of `config.cache`.

    Raises:
      DataError: what `open_cache` finds, or fewer examples in an epoch than in a batch.
    """
    vocabulary = load_vocabulary(config)
    manifest = open_cache(config, vocabulary.digest)
    require_a_batch(
        f"data.cache = {config.cache!r}",
        manifest.count("train"),
        "training examples in an epoch",
        host.batch_of_all_hosts,
        MORE_TEXT,
    )
    streams = [
        segments.shuffle().repeat().random_map(corrupt)
        for segments, corrupt in _streams(config, manifest, vocabulary, "train", config.seed)
    ]
    weights = [s.weight * d.weight for s, d in itertools.product(config.sources, config.denoisers)]
    mixture = grain.MapDataset.mix(streams, weights)
    # Batch s of all hosts is batches s * num_shards to (s + 1) * num_shards - 1 of one host each.
    batches = mixture.batch(host.batch_size, drop_remainder=True)
    data = digest(
        config.seed,
        weights,
        config.denoisers,
        config.input_length,
        config.decoder_length,
        [(file.name, file.crc32) for file in manifest.files if file.split == "train"],
    )
    definition = {"data": data, "batch_of_all_hosts": host.batch_of_all_hosts}
    return CachedBatches(batches[host.shard_index :: host.num_shards], definition)


@functools.cache
def numbers_drawn() -> str:
    """A digest of numbers as Grain and numpy draw them here for permutations, mixtures and masks:
    another version of theirs may draw others, and then a step's batch is another one."""
    streams = [
        grain.MapDataset.range(100 + seed)
        .seed(seed)
        .shuffle()
        .repeat()
        .random_map(lambda i, rng: [i, *map(int, rng.choice(1000, 3, replace=False))])
        for seed in range(2)
    ]
    mixture = grain.MapDataset.mix(streams, [0.3, 0.7])
    return digest([mixture[i] for i in range(300)])


class CachedBatches:
    """Endless training batches; `get_state` and `set_state` save and restore the position.

    Args:
      dataset: batches by step.
      definition: JSON values that tell data of other positions apart.
    """

    def __init__(self, dataset: grain.MapDataset, definition: dict[str, Any]):
        self._dataset = dataset
        self._definition = definition
        self._numbers = {
            "numbers_drawn": numbers_drawn(),
            "drawn_by": f"grain {version('grain')} and numpy {version('numpy')}",
        }
        self._step = 0
        self._iterator: Any = None

    def __iter__(self) -> "CachedBatches":
        return self

    def __next__(self) -> Arrays:
        if self._iterator is None:
            self._iterator = iter(self._dataset[self._step :].to_iter_dataset(_READ_AHEAD))
        batch = next(self._iterator)
        self._step += 1
        return batch

    def get_state(self) -> bytes:
        """The position, some bytes of JSON: the same for any number of hosts."""
        return json.dumps({"step": self._step, **self._definition, **self._numbers}).encode()

    def set_state(self, state: bytes) -> None:
        """Goes to a position that `get_state` gave, on whatever number of hosts; reads nothing.

        Raises:
          DataError: bytes that are no such position, or one of other data, batch size or versions
            of Grain and numpy that draw other numbers.
        """
        words = "in a cache; must be of a run with data.cache"
        position = read_position(state, self._definition, words, tuple(self._numbers))
        if position["numbers_drawn"] != self._numbers["numbers_drawn"]:
            raise DataError(
                f"position in the data: was saved with {position['drawn_by']}, which draw other "
                f"random numbers than {self._numbers['drawn_by']}; must be gone on with by the "
                "former"
            )
        if self._iterator is not None:
            self._iterator.close()
        self._step, self._iterator = position["step"], None


class CachedValidation:
    """The validation segments of a cache; each `iter` is one pass over them, always the same.

    Args:
      limit: the most batches of a pass; None for all.
      seed: of the masks.

    Raises:
      DataError: what `open_cache` finds, or no source has validation text.
    """

    def __init__(self, config: DataConfig, host: HostRows, limit: int | None, seed: int):
        vocabulary = load_vocabulary(config)
        manifest = open_cache(config, vocabulary.digest)
        if not manifest.count("validation"):
            raise DataError(
                f"data.cache = {config.cache!r}: has no validation text; data.sources.validation "
                "must name some when the cache is built"
            )
        self._examples = grain.MapDataset.concatenate(
            [
                segments.random_map(corrupt)
                for segments, corrupt in _streams(config, manifest, vocabulary, "validation", seed)
            ]
        )
        self._host = host
        batches = math.ceil(len(self._examples) / host.batch_of_all_hosts)
        self._batches = batches if limit is None else min(batches, limit)

    def __iter__(self) -> Iterator[Arrays]:
        # An example of zeros stands where there are no more.
        nothing = {name: np.zeros_like(values) for name, values in self._examples[0].items()}
        host, count = self._host, len(self._examples)
        for number in range(self._batches):
            batch = range(number * host.batch_of_all_hosts, (number + 1) * host.batch_of_all_hosts)
            rows = [self._examples[i] if i < count else nothing for i in batch[host.rows]]
            yield {name: np.stack([row[name] for row in rows]) for name in nothing}


def _streams(
    config: DataConfig, manifest: Manifest, vocabulary: Vocabulary, split: Split, seed: int
) -> Iterator[tuple[grain.MapDataset, Any]]:
    """For each source and denoiser its segments, seeded, and what makes examples of them."""
    pairs = itertools.product(range(len(config.sources)), config.denoisers)
    for number, (source, denoiser) in enumerate(pairs):
        files = manifest.select(split, source, denoiser.segment_length(config.input_length))
        if files:
            own_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
            segments = grain.MapDataset.source(_Segments(str(config.cache), files, manifest.dtype))
            corrupt = functools.partial(
                _example,
                denoiser=denoiser,
                vocabulary_size=vocabulary.size,
                eos_id=vocabulary.eos_id,
                input_length=config.input_length,
                decoder_length=config.decoder_length,
            )
            yield segments.seed(own_seed), corrupt


class _Segments:
    """Segments of several files by number, int32 [any]."""

    def __init__(self, directory: str, files: list[SegmentFile], dtype: str):
        # As their number of records is given, files are opened when they are first read.
        self._records = grain.sources.ArrayRecordDataSource(
            [f"{Path(directory) / file.name}[0:{file.segments}]" for file in files]
        )
        self._directory = directory
        self._dtype = np.dtype(dtype)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> np.ndarray:
        try:
            record = self._records[index]
        except (RuntimeError, OSError) as error:
            raise DataError(
                f"data.cache = {self._directory!r}: cannot be read ({error}); build the cache again"
            ) from None
        return np.frombuffer(record, self._dtype).astype(np.int32)


def _example(
    tokens: np.ndarray,
    rng: np.random.Generator,
    *,
    denoiser: DenoiserConfig,
    vocabulary_size: int,
    eos_id: int,
    input_length: int,
    decoder_length: int,
) -> Arrays:
    """One segment, corrupted: a row of a batch."""
    inputs, targets = corrupted(tokens, denoiser, vocabulary_size, rng)
    return Seq2SeqBatch.unpacked(
        _ended(inputs, eos_id, input_length), _ended(targets, eos_id, decoder_length)
    ).named()


def _ended(tokens: np.ndarray, eos_id: int, length: int) -> np.ndarray:
    """Tokens, EOS and padding: int32 [length]."""
    padding = np.zeros(length - len(tokens) - 1, np.int32)
    return np.concatenate([tokens, [eos_id], padding], dtype=np.int32)
