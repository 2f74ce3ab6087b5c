"""Makes a cache: each shard is a function of the settings alone, and appears when it is whole.

A build that was killed goes on with the shards that are missing, and ends with the same files.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import seqio
from array_record.python import array_record_module

from spade_jax.config import require
from spade_jax.data._tensorflow import NumpyIterator, tf
from spade_jax.data.cache.manifest import (
    FORMAT,
    MANIFEST,
    Manifest,
    SegmentFile,
    define,
    write_json,
)
from spade_jax.data.config import SPLITS, DataConfig, DataError, Split
from spade_jax.data.denoising import tokenize
from spade_jax.data.digests import digest, digest_files
from spade_jax.data.sources import (
    DocumentSource,
    check_sources,
    has_split,
    list_files,
    name_sources,
)
from spade_jax.data.tfds_datasets import count_examples, load_builder, split_files
from spade_jax.data.vocabulary import load_vocabulary
from spade_jax.files import crc32, unfinished


@dataclasses.dataclass(frozen=True)
class Shard:
    """One piece of work: every num_shards-th part of one split of one source.

    Attributes:
      build: a name for the settings and input files; shards of other builds are never mixed.
    """

    config: DataConfig
    output: Path
    build: str
    split: Split
    source: int
    index: int
    num_shards: int

    @property
    def record(self) -> Path:
        """The file that says which files the finished shard has."""
        return self._path("", "json")

    def segments(self, length: int) -> Path:
        return self._path(f"-length{length}", "array_record")

    def _path(self, kind: str, suffix: str) -> Path:
        number = f"{self.index:05d}-of-{self.num_shards:05d}"
        return self.output / f"{self.split}-source{self.source}{kind}-{number}.{suffix}"


Runner = Callable[[list[Shard]], Iterator[list[SegmentFile]]]


def build_cache(
    config: DataConfig,
    output: Path,
    num_shards: int,
    run: Runner,
    report: Callable[[int, int, int], None] = lambda done, total, segments: None,
) -> Manifest:
    """Makes the cache of the sources, vocabulary and segment lengths of `config`.

    Args:
      output: the directory; made if it is not there.
      run: shards -> the files of each, in any order: `run_here`, or that of `workers`
        or `beam`.
      report: called with the shards done, all shards, and the segments so far.

    Raises:
      DataError: a source or the vocabulary cannot be read, has no text, or `output` cannot be
        written to or holds something else.
    """
    where = f"--output = {str(output)!r}"
    require(num_shards > 0, "--shards", num_shards, "must be at least 1")
    vocabulary = load_vocabulary(config)
    definition = define(config, vocabulary.digest)
    splits = [
        (split, number)
        for split in SPLITS
        for number, source in enumerate(config.sources)
        if has_split(source, split)
    ]
    for split in SPLITS:
        check_sources(config.sources, split)
    for split, number in splits:
        if config.sources[number].kind == "tfds":
            examples = count_examples(config.sources[number], split)
            require(
                num_shards <= examples,
                "--shards",
                num_shards,
                f"must be at most {examples}, the examples of data.sources.{number}.{split}",
            )
    inputs = [_inputs(config, split, number) for split, number in splits]
    build = digest(definition, num_shards, inputs)
    shards = [
        Shard(config, output, build, split, number, index, num_shards)
        for split, number in splits
        for index in range(num_shards)
    ]
    try:
        output.mkdir(parents=True, exist_ok=True)
        _refuse_another_build(output, build, where)
        _remove_unfinished(output)
    except OSError as error:
        raise DataError(f"{where}: {error.strerror}") from None

    files: list[SegmentFile] = []
    report(0, len(shards), 0)
    for done, made in enumerate(run(shards), start=1):
        files += made
        report(done, len(shards), sum(file.segments for file in files))
    for split, number in splits:
        if not any(f.segments for f in files if (f.split, f.source) == (split, number)):
            raise DataError(f"data.sources.{number}.{split}: has no tokens; must have text")
    _remove_unfinished(output)
    files.sort(key=lambda file: file.name)
    manifest = Manifest(FORMAT, definition, _token_dtype(vocabulary.size).str, tuple(files))
    write_json(output / MANIFEST, dataclasses.asdict(manifest))
    return manifest


def _inputs(config: DataConfig, split: Split, number: int) -> list[Any]:
    """What tells the text of a build from that of one before."""
    source = config.sources[number]
    # The build reads all of it anyway, many times as slowly.
    if source.kind == "tfds":
        return [load_builder(source).info.full_name, digest_files(split_files(source, split))]
    return [digest_files(list_files(source, split))]


def _refuse_another_build(output: Path, build: str, where: str) -> None:
    """Raises DataError where the directory holds shards, or a cache, of other settings."""
    records = sorted(output.glob("*-of-*.json"))
    others = [path for path in records if _read_build(path) not in (build, None)]
    if not records and (output / MANIFEST).exists():
        others = [output / MANIFEST]
    if others:
        raise DataError(
            f"{where}: holds {others[0].name} of a cache with other settings or input files; name "
            "another directory, or delete this one"
        )


def _read_build(record: Path) -> str | None:
    """The build of a finished shard; None where the file is damaged."""
    try:
        return json.loads(record.read_text(encoding="utf-8"))["build"]
    except (ValueError, KeyError, TypeError):
        return None


def _remove_unfinished(output: Path) -> None:
    for path in output.glob(".*.unfinished"):
        path.unlink(missing_ok=True)


@tf.autograph.experimental.do_not_convert
def build_shard(shard: Shard) -> list[SegmentFile]:
    """Makes the files of a shard, unless they are there; equal shards have equal bytes.

    Raises:
      DataError: text that cannot be read, or files that cannot be written.
    """
    files = read_record(shard)
    if files is not None and all(_is_whole(shard.output, file) for file in files):
        return files
    vocabulary = load_vocabulary(shard.config)
    source = DocumentSource(shard.config.sources[shard.source])
    lengths = define(shard.config, vocabulary.digest)["segment_lengths"]
    try:
        documents = source.get_dataset(
            shard.split, shuffle=False, shard_info=seqio.ShardInfo(shard.index, shard.num_shards)
        )
        writers = [
            _SegmentWriter(shard.segments(length), length, _token_dtype(vocabulary.size))
            for length in lengths
        ]
        tokens = tokenize(documents, vocabulary)
        for document in NumpyIterator(tokens, name_sources([source])):
            for writer in writers:
                writer.add(document["targets"])
        files = [
            SegmentFile(path.name, shard.split, shard.source, length, count, *_size(path))
            for length, (path, count) in zip(lengths, [writer.finish() for writer in writers])
        ]
        values = [dataclasses.asdict(file) for file in files]
        write_json(shard.record, {"build": shard.build, "files": values})
    except (OSError, RuntimeError) as error:  # The latter is what ArrayRecord raises.
        reason = str(error).split(";")[0]
        raise DataError(f"--output = {str(shard.output)!r}: {reason}") from None
    return files


def read_record(shard: Shard) -> list[SegmentFile] | None:
    """The files of a finished shard; None of one that is not."""
    try:
        record = json.loads(shard.record.read_text(encoding="utf-8"))
        return [SegmentFile(**file) for file in record["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _token_dtype(vocabulary_size: int) -> np.dtype:
    return np.dtype("<u2" if vocabulary_size <= 2**16 else "<i4")


class _SegmentWriter:
    """Joins documents end to end and writes segments of `length` tokens, the last with the rest."""

    def __init__(self, path: Path, length: int, dtype: np.dtype):
        self._path = path
        self._length = length
        self._unfinished = unfinished(path)
        # Random access reads one group of records at a time.
        self._writer = array_record_module.ArrayRecordWriter(str(self._unfinished), "group_size:1")
        self._rest = np.empty(0, dtype)
        self._count = 0

    def add(self, tokens: np.ndarray) -> None:
        tokens = np.concatenate([self._rest, tokens.astype(self._rest.dtype)])
        end = len(tokens) // self._length * self._length
        for segment in tokens[:end].reshape(-1, self._length):
            self._write(segment)
        self._rest = tokens[end:]

    def finish(self) -> tuple[Path, int]:
        """The path, where the whole file now is, and the number of segments."""
        if len(self._rest):
            self._write(self._rest)
        self._writer.close()
        os.replace(self._unfinished, self._path)
        return self._path, self._count

    def _write(self, segment: np.ndarray) -> None:
        self._writer.write(segment.tobytes())
        self._count += 1


def _size(path: Path) -> tuple[int, int]:
    """Bytes and CRC-32 of a file."""
    return path.stat().st_size, crc32(path)


def _is_whole(output: Path, file: SegmentFile) -> bool:
    path = output / file.name
    return path.is_file() and _size(path) == (file.bytes, file.crc32)


def run_here(shards: list[Shard]) -> Iterator[list[SegmentFile]]:
    """Makes one shard after the other."""
    return map(build_shard, shards)
