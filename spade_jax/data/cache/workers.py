"""Shards in processes of this machine. Imports little, so that workers can hush their imports."""

import concurrent.futures
import multiprocessing
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING

from spade_jax.data.config import DataError
from spade_jax.data.processes import follow_parent
from spade_jax.programs import quiet_imports

if TYPE_CHECKING:
    from spade_jax.data.cache.build import Shard
    from spade_jax.data.cache.manifest import SegmentFile


def run_in_processes(shards: "list[Shard]", workers: int) -> "Iterator[list[SegmentFile]]":
    """Makes shards in `workers` processes, which end with this one.

    Raises:
      DataError: what `build_shard` raises, or a worker was killed.
    """
    with concurrent.futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start_worker
    ) as pool:
        try:
            waiting = [pool.submit(_build, shard) for shard in shards]
            for future in concurrent.futures.as_completed(waiting):
                yield future.result()
        except BrokenProcessPool:
            raise DataError(
                f"--workers = {workers}: a process was killed, perhaps for want of memory; the "
                "same command goes on, with fewer workers if need be"
            ) from None
        except BaseException:
            # Whole shards are kept; there is no use in waiting for others.
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            raise


def _start_worker() -> None:
    follow_parent()
    with quiet_imports():
        import spade_jax.data.cache.build  # noqa: F401


def _build(shard: "Shard") -> "list[SegmentFile]":
    from spade_jax.data.cache.build import build_shard

    return build_shard(shard)
