"""The build of a cache as an Apache Beam pipeline, for a cluster with a file system in common."""

import shlex
from collections.abc import Iterator

import apache_beam
from apache_beam.options.pipeline_options import PipelineOptions

from spade_jax.data.cache.build import Shard, build_shard, read_record
from spade_jax.data.cache.manifest import SegmentFile


def run_in_beam(shards: list[Shard], options: str) -> Iterator[list[SegmentFile]]:
    """Makes shards on the workers of a Beam runner, each of which must see the output directory.

    Args:
      options: Beam's, as on a command line, such as "--runner=DirectRunner".
    """
    with apache_beam.Pipeline(options=PipelineOptions(shlex.split(options))) as pipeline:
        _ = (
            pipeline
            | "shards" >> apache_beam.Create(shards)
            | "spread" >> apache_beam.Reshuffle()
            | "build" >> apache_beam.Map(_build)
        )
    for shard in shards:
        yield read_record(shard) or build_shard(shard)


def _build(shard: Shard) -> None:
    build_shard(shard)
