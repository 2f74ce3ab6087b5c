"""Processes that work for this one: they end with it, and give what they make in order."""

import collections
import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from spade_jax.data.config import DataError

T = TypeVar("T")


@contextlib.contextmanager
def in_order(
    make: Callable[[int], T], numbers: Iterable[int], workers: int
) -> Iterator[Iterator[T]]:
    """What `make` gives for each number, in their order: the same for any number of processes.

    Args:
      make: a function at the top of a module, or a partial of one.
      numbers: perhaps without end.

    Raises:
      DataError: within the context, where a process was killed.
    """
    if workers == 1:
        yield map(make, numbers)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, initializer=follow_parent) as pool:
        try:
            yield _ahead(make, iter(numbers), pool, 2 * workers)
        except BrokenProcessPool:
            raise DataError(
                f"--workers = {workers}: a process was killed, perhaps for want of memory; must be "
                "fewer"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _ahead(
    make: Callable[[int], T], numbers: Iterator[int], pool: ProcessPoolExecutor, count: int
) -> Iterator[T]:
    """With `count` numbers at work or waiting for it."""
    waiting: collections.deque[Future[T]] = collections.deque()
    while True:
        waiting.extend(
            pool.submit(make, n) for n in itertools.islice(numbers, count - len(waiting))
        )
        if not waiting:
            return
        yield waiting.popleft().result()


def follow_parent() -> None:
    """To be called in a worker: it ends with the process that started it, however that ends, and
    not by Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
