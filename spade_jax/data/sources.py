"""Sources of documents as seqio sees them, and what can be checked before training begins."""

import collections
import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import seqio
from etils import epath

from spade_jax.data import prepared
from spade_jax.data._tensorflow import NumpyIterator, tf
from spade_jax.data.config import DataError, SourceConfig, Split
from spade_jax.data.contents import digest_files
from spade_jax.data.documents import DocumentReader, first_line, read_documents

SHIPPED_TEXT = epath.Path(__file__).parent / "text"
# Local files of up to this size together are read through before training begins.
CHECKED_BYTES = 32 * 2**20
# Of up to this size their contents are compared with those at the last checkpoint.
DIGESTED_BYTES = 2**30

_SPLITS: tuple[Split, ...] = ("train", "validation")


def list_files(config: SourceConfig, split: Split) -> list[str]:
    """Paths of a split, those of each pattern sorted.

    Raises:
      DataError: a path or glob without a file, or a file named twice.
    """
    if config.kind == "sotu":
        return [str(SHIPPED_TEXT / f"sotu.{split}.jsonl.gz")]
    return glob_files(getattr(config, split), f"data.sources.{split}")


def glob_files(names: str | Iterable[str], setting: str) -> list[str]:
    """The files that paths and globs lead to, those of each glob sorted.

    What is the path of a file is that file, whatever letters it has, and folders that are there are
    those: only what is neither is a glob, or, of one string, several separated by commas.

    Raises:
      DataError: one without a file, or a file named twice.
    """
    if isinstance(names, str):
        names = [names] if is_file(names) else names.split(",")
    patterns = [name if is_file(name) else name.strip() for name in names if name.strip()]
    files: list[str] = []
    for pattern in patterns:
        try:
            found = [pattern] if is_file(pattern) else _matching(pattern)
        except tf.errors.OpError as error:
            raise DataError(f"{setting} = {pattern!r}: {first_line(error)}") from None
        if not found:
            raise DataError(
                f"{setting} = {pattern!r}: no such file; must be a path, or a glob that matches "
                "files"
            )
        files += found
    counts = collections.Counter(map(_real, files))
    twice = [path for path in files if counts[_real(path)] > 1]
    if twice:
        raise DataError(f"{setting} = {','.join(patterns)!r}: names {twice[0]} twice")
    return files


def is_file(path: str) -> bool:
    """Whether a path is that of a file, and no folder."""
    try:
        return tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path)
    except tf.errors.OpError:  # A list of files of a remote system is no name there.
        return False


def _matching(pattern: str) -> list[str]:
    """The files that a glob matches, sorted."""
    folder, _, name = pattern.rpartition("/")
    if set(folder) & set("*?["):
        while folder and not tf.io.gfile.isdir(folder):
            folder, _, above = folder.rpartition("/")
            name = f"{above}/{name}"
        pattern = f"{glob.escape(folder)}/{name}" if folder else pattern
    return sorted(path for path in tf.io.gfile.glob(pattern) if not tf.io.gfile.isdir(path))


def _real(path: str) -> str:
    """The one name of a local file."""
    return path if "://" in path else os.path.realpath(path)


def check_disjoint(sets: Iterable[tuple[str, Any, Iterable[str]]]) -> None:
    """Looks for a file, under whatever name, that is in sets which must have none in common.

    Args:
      sets: of each the setting, its value and its files; those of one setting may share files.

    Raises:
      DataError: there is one.
    """
    seen: dict[str, str] = {}
    for setting, value, files in sets:
        for path in files:
            other = seen.setdefault(_real(path), setting)
            if other != setting:
                raise DataError(
                    f"{setting} = {value!r}: {path} is in {other} as well; a file must be in one "
                    "of them only"
                )


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
        super().__init__([s for s in _SPLITS if has_split(config, s)])

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
            texts = prepared.read_texts(
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
    try:
        for example in NumpyIterator(source.get_dataset(split, shuffle=False)):
            yield example["text"]
    except tf.errors.OpError as error:
        raise streaming_error(error, name_sources([source])) from None


def has_split(config: SourceConfig, split: Split) -> bool:
    return config.kind == "sotu" or bool(config.patterns(split))


def check_sources(sources: Sequence[SourceConfig], split: Split) -> None:
    """Finds what is wrong with those sources that have the split, as `check_source` does, and with
    all of them together: what one trains on, none must validate on.

    Raises:
      DataError: the first thing found.
    """
    for source in sources:
        if has_split(source, split):
            check_source(source, split)
    _check_splits(sources)


def check_source(config: SourceConfig, split: Split) -> None:
    """Finds what is wrong with a source, as far as a few seconds reach.

    Local files are read through, unless they are large; others fail when their turn comes.

    Raises:
      DataError: the first thing found.
    """
    if config.kind == "tfds":
        prepared.check_splits(config)
        return
    files = list_files(config, split)
    _check_splits([config])
    if _are_local(files, CHECKED_BYTES):
        for path in files:
            for _ in read_documents(path, config):
                pass


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
        for split in _SPLITS:
            if not has_split(source, split):
                continue
            if source.kind == "tfds":
                digests = prepared.digest_splits(source, split)
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
        for split in _SPLITS
        for source in sources
        if source.kind != "tfds" and has_split(source, split)
    )


def streaming_error(error: tf.errors.OpError, where: str) -> DataError:
    """What went wrong while reading, in one sentence."""
    # tf.data turns an error that Python raised within it into text, with a stack trace.
    raised = re.search(rf"{DataError.__name__}: (.+)", error.message)
    return DataError(raised.group(1) if raised else f"{where}: {first_line(error)}")


def name_sources(sources: Iterable[DocumentSource]) -> str:
    """How messages call them."""
    names = (s.config.name or str(s.config.train) or s.config.kind for s in sources)
    return f"data.sources ({'; '.join(names)})"
