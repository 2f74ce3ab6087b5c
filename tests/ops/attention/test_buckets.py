import numpy as np
import pytest
from golden_data import Golden

from spade_jax.ops.attention.buckets import relative_position_buckets


@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (8, 16), (16, 64)])
@pytest.mark.parametrize(("name", "bidirectional"), [("uni", False), ("bi", True)])
def test_buckets_are_those_of_the_authors(name, bidirectional, num_buckets, max_distance):
    golden = Golden("relative_buckets")
    buckets = relative_position_buckets(
        golden["in/relative_position"],
        bidirectional=bidirectional,
        num_buckets=num_buckets,
        max_distance=max_distance,
    )
    assert buckets.dtype == np.int32
    np.testing.assert_array_equal(buckets, golden[f"out/{name}_nb{num_buckets}_md{max_distance}"])


def test_buckets_by_hand():
    """Four exact distances, then (4, 5), (6, 7) and so on up to 16 and beyond, for either sign."""
    relative_position = np.array([[0, -1, -3, -4, -5], [1, 3, 4, 16, 10**6]])
    buckets = relative_position_buckets(
        relative_position, bidirectional=True, num_buckets=16, max_distance=16
    )
    # 4 + 4 log(d / 4) / log(4): distance 5 gives 4.6, distances from 16 on the last bucket.
    assert buckets.tolist() == [[0, 1, 3, 4, 4], [9, 11, 12, 15, 15]]


def test_causal_buckets_do_not_tell_keys_ahead_apart():
    ahead = relative_position_buckets(
        np.arange(50), bidirectional=False, num_buckets=8, max_distance=16
    )
    assert not ahead.any()


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (8, 16), (16, 9), (4, 1000)])
def test_from_the_largest_distance_on_there_is_one_bucket(bidirectional, num_buckets, max_distance):
    """So that biases are known by those up to there: `full_attention` takes no more."""
    behind, ahead = (
        relative_position_buckets(
            sign * np.arange(max_distance, 5000),
            bidirectional=bidirectional,
            num_buckets=num_buckets,
            max_distance=max_distance,
        )
        for sign in (-1, 1)
    )
    assert {*behind} == {num_buckets // (2 if bidirectional else 1) - 1}
    assert {*ahead} == {num_buckets - 1 if bidirectional else 0}
