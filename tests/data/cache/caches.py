"""Caches that tests build, and what is in them."""

import dataclasses
from pathlib import Path

import grain
import numpy as np

from spade_jax.data.cache import build
from spade_jax.data.config import DataConfig

NUM_SHARDS = 5


def make(config: DataConfig, directory: Path, num_shards: int = NUM_SHARDS) -> DataConfig:
    """Builds a cache; gives the configuration that reads it."""
    build.build_cache(config, directory, num_shards, build.run_here)
    return dataclasses.replace(config, cache=str(directory))


def segments(config: DataConfig, split: str = "train") -> list[bytes]:
    """The text of every segment in a cache of bytes."""
    return [
        bytes(int(token) - 3 for token in np.frombuffer(record, "<u2"))
        for path in sorted(Path(config.cache).glob(f"{split}*.array_record"))
        for record in grain.sources.ArrayRecordDataSource(str(path))
    ]


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}
