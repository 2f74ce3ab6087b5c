"""Sources of documents as seqio sees them, and what can be checked before training begins."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import seqio
from etils import epath

from spade_jax.data import tfds_datasets
from spade_jax.data._tensorflow import NumpyIterator, tf
from spade_jax.data.config import SPLITS, SourceConfig, Split
from spade_jax.data.digests import digest_files
from spade_jax.data.documents import DocumentReader, read_documents
from spade_jax.data.input_files import SHIPPED_TEXT, check_disjoint, glob_files
from spade_jax.data.utf8 import EncodingDataError, gathered, raise_gathered

# Local files of up to this size together are read through before training begins.
CHECKED_BYTES = 32 * 2**20
# Of up to this size their contents are compared with those at the last checkpoint.
DIGESTED_BYTES = 2**30


def list_files(config: SourceConfig, split: Split) -> list[str]:
    """Paths of a split, those of each pattern sorted.

    Raises:
      DataError: a path or glob without a file, or a file named twice.
    """
    if config.kind == "sotu":
        return [str(SHIPPED_TEXT / f"sotu.{split}.jsonl.gz")]
    return glob_files(getattr(config, split), f"data.sources.{split}")


class DocumentSource(seqio.DataSource):
    """Examples with bytes [] `text`, one a document.

    A shard holds whole files if there are at least as many files as shards, else every
    num_shards-th document of each file; whatever the seed, the same documents.

    Args:
      config: what to read.
      shuffle_buffer: documents held back for shuffling, where shuffling is asked for.
      salt: sources of equal `config` but other salts are shuffled in other orders.
    """

    def __init__(self, config: SourceConfig, shuffle_buffer: int = 1, salt: int = 0):
        self.config = config
        self._reader = DocumentReader(config)
        self._shuffle_buffer = shuffle_buffer
        self._salt = salt
        super().__init__([s for s in SPLITS if has_split(config, s)])

    @property
    def supports_arbitrary_sharding(self) -> bool:
        return True

    def list_shards(self, split: Split) -> list[str]:
        if self.config.kind == "tfds":
            return list(self.config.patterns(split))
        return list_files(self.config, split)

    def get_dataset(
        self,
        split: Split = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        **unused: Any,
    ) -> tf.data.Dataset:
        shard_info = shard_info or seqio.ShardInfo(index=0, num_shards=1)
        seed = None if seed is None else seed + self._salt
        if self.config.kind == "tfds":
            texts = tfds_datasets.read_texts(
                self.config, split, shuffle_files=shuffle, seed=seed, shard_info=shard_info
            )
        else:
            texts = self._read_files(split, shuffle, seed, shard_info)
        if shuffle:
            texts = texts.shuffle(self._shuffle_buffer, seed=seed)
        return texts.map(lambda text: {"text": text})

    def _read_files(
        self, split: Split, shuffle: bool, seed: int | None, shard_info: seqio.ShardInfo
    ) -> tf.data.Dataset:
        files = list_files(self.config, split)
        shard, num_shards = shard_info.index, shard_info.num_shards
        if len(files) >= num_shards:
            files, shard, num_shards = files[shard::num_shards], 0, 1
        paths = tf.data.Dataset.from_tensor_slices(files)
        if shuffle:
            paths = paths.shuffle(len(files), seed=seed)
        return paths.interleave(
            lambda path: self._reader.documents(path, shard, num_shards),
            cycle_length=min(len(files), 16),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )


def iterate_documents(config: SourceConfig, split: Split) -> Iterator[bytes]:
    """UTF-8 documents of a split, in order.

    Raises:
      DataError: what `check_source` finds, or what turns up while reading.
    """
    check_source(config, split)
    source = DocumentSource(config)
    for example in NumpyIterator(source.get_dataset(split, shuffle=False), name_sources([source])):
        yield example["text"]


def has_split(config: SourceConfig, split: Split) -> bool:
    return config.kind == "sotu" or bool(config.patterns(split))


def check_sources(sources: Sequence[SourceConfig], split: Split) -> None:
    """Finds what is wrong with those sources that have the split, as `check_source` does, and with
    all of them together: what one trains on, none must validate on.

    Raises:
      DataError: the first thing found, but of all files that are not UTF-8 one that names them.
    """
    broken: list[EncodingDataError] = []
    for source in sources:
        if has_split(source, split):
            broken += _look_through(source, split)
    if broken:
        # A run would come upon those of the other split next.
        for other in SPLITS:
            for source in sources if other != split else ():
                broken += _look_through(source, other) if has_split(source, other) else ()
    raise_gathered(broken)
    _check_splits(sources)


def check_source(config: SourceConfig, split: Split) -> None:
    """Finds what is wrong with a source, as far as a few seconds reach.

    Local files are read through, unless they are large; others fail when their turn comes.

    Raises:
      DataError: the first thing found, but of all files that are not UTF-8 one that names them.
    """
    raise_gathered(_look_through(config, split))


def _look_through(config: SourceConfig, split: Split) -> list[EncodingDataError]:
    """What `check_source` does, but gives what is not UTF-8, the first place of each file."""
    if config.kind == "tfds":
        tfds_datasets.check_splits(config)
        return []
    files = list_files(config, split)
    _check_splits([config])
    broken: list[EncodingDataError] = []
    if _are_local(files, CHECKED_BYTES):
        for path in files:
            with gathered(broken):
                for _ in read_documents(path, config):
                    pass
    return broken


def _are_local(files: list[str], most_bytes: int) -> bool:
    """Whether files are on this machine, and not too large to be read at every start."""
    if any("://" in path for path in files):
        return False
    return sum(epath.Path(path).stat().length for path in files) <= most_bytes


def digest_sources(sources: Sequence[SourceConfig]) -> dict[str, dict[str, str]]:
    """For each split of each source, by setting, what it is read from, each with a digest.

    Of local files of up to `DIGESTED_BYTES` that is one of their contents, of larger and remote
    ones their lengths, of TFDS one of what it says of its splits.

    Raises:
      DataError: something is not there or cannot be read.
    """
    found: dict[str, dict[str, str]] = {}
    for number, source in enumerate(sources):
        for split in SPLITS:
            if not has_split(source, split):
                continue
            if source.kind == "tfds":
                digests = tfds_datasets.digest_splits(source, split)
            else:
                files = list_files(source, split)
                if _are_local(files, DIGESTED_BYTES):
                    digests = digest_files(files)
                else:
                    digests = {f: f"{tf.io.gfile.stat(f).length} bytes" for f in files}
            # Where the package lies is of no account.
            digests = {f.removeprefix(f"{SHIPPED_TEXT}/"): digests[f] for f in digests}
            found[f"data.sources.{number}.{split}"] = digests
    return found


def _check_splits(sources: Sequence[SourceConfig]) -> None:
    check_disjoint(
        (f"data.sources.{split}", getattr(source, split), list_files(source, split))
        for split in SPLITS
        for source in sources
        if source.kind != "tfds" and has_split(source, split)
    )


def name_sources(sources: Iterable[DocumentSource]) -> str:
    """How messages call them."""
    names = (s.config.name or str(s.config.train) or s.config.kind for s in sources)
    return f"data.sources ({'; '.join(names)})"
