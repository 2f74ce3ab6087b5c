"""Work of several processes."""

import itertools
import os

import pytest

from spade_jax.data.config import DataError
from spade_jax.data.processes import in_order


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_numbers(workers):
    with in_order(hex, range(7), workers) as results:
        assert list(results) == [*map(hex, range(7))]
    with in_order(hex, itertools.count(), workers) as results:
        assert list(itertools.islice(results, 9)) == [*map(hex, range(9))]


def test_a_process_that_was_killed_is_said():
    with (
        pytest.raises(DataError, match=r"^--workers = 2: a process was killed, perhaps for want"),
        in_order(os._exit, [1], 2) as results,
    ):
        next(results)
