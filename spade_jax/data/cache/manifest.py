"""What a cache holds: files of segments, and `cache.json`, which is written last and names them."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spade_jax.config import ConfigError, from_dict
from spade_jax.data.config import DataConfig, DataError, Split
from spade_jax.files import atomic_write
from spade_jax.stored import read_json

MANIFEST = "cache.json"
FORMAT = 1

# What `cache.json` is like.
_SHAPE = {
    "format": int,
    "definition": {
        "vocabulary": str,
        "sources": [
            {"kind": str, "name": (str, None), "field": str, "train": [str], "validation": [str]}
        ],
        "segment_lengths": [int],
    },
    "dtype": ("<u2", "<i4"),
    "files": [{"segments": int, "bytes": int, "crc32": int, "source": int, "length": int}],
}


@dataclasses.dataclass(frozen=True)
class SegmentFile:
    """An ArrayRecord file whose records are segments: the tokens, as `Manifest.dtype`.

    Attributes:
      source: index in `DataConfig.sources`.
      length: tokens in each segment but the last, which holds what was left.
      segments: how many.
      bytes, crc32: of the whole file.
    """

    name: str
    split: Split
    source: int
    length: int
    segments: int
    bytes: int
    crc32: int


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The contents of a cache.

    Attributes:
      format: of the cache, `FORMAT`.
      definition: what `define` gave for the settings it was made with.
      dtype: of tokens, little-endian.
      files: sorted by name.
    """

    format: int
    definition: dict[str, Any]
    dtype: str
    files: tuple[SegmentFile, ...]

    def select(self, split: Split, source: int, length: int) -> list[SegmentFile]:
        """The files of one source that hold its segments of one length, by shard."""
        wanted = (split, source, length)
        return [f for f in self.files if (f.split, f.source, f.length) == wanted and f.segments]

    def count(self, split: Split) -> int:
        return sum(file.segments for file in self.files if file.split == split)


def define(config: DataConfig, vocabulary_digest: str) -> dict[str, Any]:
    """The settings that decide what a cache holds, as JSON values.

    Weights, seeds and the ways of masking are not among them: those may change as long as segments
    stay of a length that is there.
    """
    return {
        "vocabulary": vocabulary_digest,
        "sources": [
            {
                "kind": source.kind,
                "name": source.name,
                "field": source.field,
                "train": list(source.patterns("train")),
                "validation": list(source.patterns("validation")),
            }
            for source in config.sources
        ],
        "segment_lengths": sorted(
            {denoiser.segment_length(config.input_length) for denoiser in config.denoisers}
        ),
    }


def open_cache(config: DataConfig, vocabulary_digest: str) -> Manifest:
    """The manifest of `config.cache`, whose files are all there and of the right size.

    Raises:
      DataError: no cache, one of other settings or another vocabulary, a file that is missing or
        has another size.
    """
    where = f"data.cache = {config.cache!r}"
    directory = Path(str(config.cache))
    manifest = read_manifest(directory, where)
    if manifest is None:
        raise DataError(
            f"{where}: holds no {MANIFEST}; must be a directory that `python -m "
            "spade_jax.data.cache --output=…` made, to its end"
        )
    wanted = define(config, vocabulary_digest)
    for difference in _differences(manifest.definition, wanted, config):
        raise DataError(
            f"{where}: was built with {difference}; must be the same, or build another cache"
        )
    for file in manifest.files:
        try:
            size = (directory / file.name).stat().st_size
        except OSError as error:
            raise DataError(
                f"{where}: {file.name} cannot be read ({error.strerror}); build the cache again"
            ) from None
        if size != file.bytes:
            raise DataError(
                f"{where}: {file.name} has {size} bytes, but must have {file.bytes}; build the "
                "cache again"
            )
    return manifest


def read_manifest(directory: Path, where: str) -> Manifest | None:
    """The manifest in a directory; None without one.

    Args:
      where: what messages begin with.

    Raises:
      DataError: it cannot be read, or is of another format.
    """
    path, name = directory / MANIFEST, f"{where}: {MANIFEST}"
    advice = "build the cache again"
    values = read_json(path, dict, advice=advice, error=DataError, name=name)
    if values is None:
        return None
    if values.get("format") != FORMAT:
        raise DataError(
            f"{where}: is a cache of format {values.get('format')!r}, but must be of format "
            f"{FORMAT}; build another one"
        )
    values = read_json(path, _SHAPE, advice=advice, error=DataError, name=name)
    try:
        return from_dict(Manifest, values, MANIFEST)
    except ConfigError as error:
        raise DataError(f"{where}: is damaged ({error}); {advice}") from None


def _differences(
    built: dict[str, Any], wanted: dict[str, Any], config: DataConfig
) -> Iterator[str]:
    """How the definition of a cache differs from the one a run needs, in words."""
    if built["vocabulary"] != wanted["vocabulary"]:
        yield (
            f"another vocabulary (digest {built['vocabulary'][:12]}) than data.vocabulary = "
            f"{config.vocabulary!r} with data.extra_ids = {config.extra_ids} (digest "
            f"{wanted['vocabulary'][:12]})"
        )
    if len(built["sources"]) != len(wanted["sources"]):
        yield (
            f"{len(built['sources'])} entries in data.sources, but this run has "
            f"{len(wanted['sources'])}"
        )
    for number, (before, now) in enumerate(zip(built["sources"], wanted["sources"])):
        for name, value in now.items():
            if before[name] != value:
                yield (
                    f"data.sources.{number}.{name} = {before[name]!r}, but this run has {value!r}"
                )
    missing = sorted(set(wanted["segment_lengths"]) - set(built["segment_lengths"]))
    if missing:
        yield (
            f"segments of {_listed(built['segment_lengths'])} tokens, but data.input_length = "
            f"{config.input_length} and data.denoisers need segments of {_listed(missing)}"
        )


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def write_json(path: Path, values: Any) -> None:
    """Writes a file that appears as a whole."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
