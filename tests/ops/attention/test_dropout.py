import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spade_jax.ops.attention.dropout import check_dropout, kept, number_queries


def mask(seed=0, rate=0.3, rows=range(4), heads=range(3), queries=range(40), keys=range(50)):
    rows, heads, queries, keys = (jnp.asarray(list(x)) for x in (rows, heads, queries, keys))
    numbers = number_queries(rows, heads, queries, num_heads=3, length=2**17)
    places = jnp.broadcast_to(keys[None], (queries.size, keys.size))
    return np.asarray(kept(jax.random.key(seed), rate, queries=numbers[..., None], keys=places))


def test_a_part_is_a_part_of_the_whole():
    whole = mask()
    assert whole.shape == (4, 3, 40, 50)
    part = mask(rows=[2, 3], heads=[1], queries=range(7, 20), keys=range(30, 50))
    np.testing.assert_array_equal(part, whole[2:4, 1:2, 7:20, 30:50])


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_that_is_kept(rate):
    whole = mask(rate=rate)
    deviation = np.sqrt(rate * (1 - rate) / whole.size)
    assert abs(whole.mean() - (1 - rate)) < 4 * deviation


def test_places_are_independent():
    """So are keys: agreement of two halves is that of chance."""
    rate = 0.5
    whole = mask(rate=rate)
    for one, other in (
        (whole, mask(seed=1, rate=rate)),
        (whole[:2], whole[2:]),
        (whole[:, 1], whole[:, 2]),
        (whole[:, :, :20], whole[:, :, 20:]),
        (whole[..., :25], whole[..., 25:]),
        # Position q of queries is another place than position q of keys.
        (whole[:, :, :, :40], whole[:, :, :, :40].swapaxes(2, 3)),
    ):
        assert abs((one == other).mean() - 0.5) < 4 * 0.5 / np.sqrt(one.size / 2)


def test_far_places_do_not_repeat():
    """As counters of 32 bits for pairs of positions would."""
    near = mask(queries=range(64), keys=range(64))
    far = mask(queries=range(2**16, 2**16 + 64), keys=range(64))
    assert 0.5 < (near == far).mean() < 0.66  # 0.3 ** 2 + 0.7 ** 2 = 0.58


def test_a_rate_of_almost_one_and_the_smallest_ones():
    assert not mask(rate=1 - 1e-12).any()
    assert mask(rate=1e-12).all()


@pytest.mark.parametrize(
    ("rate", "key", "message"),
    [
        (1.0, 0, r"dropout_rate = 1.0: must be in \[0, 1\)"),
        (-0.1, 0, "dropout_rate = -0.1: must be in"),
        (0.1, None, "dropout_rate = 0.1: must be 0 without a dropout_key"),
    ],
)
def test_rates_that_cannot_be(rate, key, message):
    with pytest.raises(ValueError, match=message):
        check_dropout(rate, None if key is None else jax.random.key(key))
