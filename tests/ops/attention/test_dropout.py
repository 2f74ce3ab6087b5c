"""Which probabilities dropout keeps: as chance would have it, by the place alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spade_jax.ops.attention.dropout import (
    check_dropout,
    keeps,
    key_words,
    number_queries,
    query_words,
)

HEADS, LENGTH = 3, 2**17


def mask(seed=0, rate=0.3, rows=range(4), heads=range(3), queries=range(40), keys=range(50)):
    """Bool [rows, heads, queries, keys]."""
    rows, heads, queries, keys = (
        jnp.asarray(list(x), jnp.int32) for x in (rows, heads, queries, keys)
    )
    numbers = number_queries(rows, heads, queries, num_heads=HEADS, length=LENGTH)
    key = jax.random.key(seed)
    words = query_words(key, numbers)[..., None], key_words(key, keys)[None, None, None]
    return np.asarray(keeps(*words, rate))


def test_a_part_is_a_part_of_the_whole():
    whole = mask()
    assert whole.shape == (4, 3, 40, 50)
    part = mask(rows=[2, 3], heads=[1], queries=range(7, 20), keys=range(30, 50))
    np.testing.assert_array_equal(part, whole[2:4, 1:2, 7:20, 30:50])


def test_a_run_that_goes_on_drops_what_it_dropped():
    """Other numbers need another NUMBERS_VERSION."""
    bits = mask(rate=0.5, rows=[1], heads=[2], queries=range(3), keys=range(40)).astype(int)
    assert ["".join(map(str, row)) for row in bits[0, 0]] == [
        "1111101001010101010111101010010110011101",
        "0001001011100010110100101011011000000111",
        "1000010000001111100110100111111011010011",
    ]


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


def standardised(seed, rate, **places):
    """One head's mask as numbers of mean 0 and variance 1."""
    whole = mask(seed, rate, rows=[0], heads=[0], **places)[0, 0]
    return (whole - (1 - rate)) / np.sqrt(rate * (1 - rate))


def scatter(sums):
    """How far the variance of sums that should be normal is from 1, in its own deviations."""
    return (np.mean(np.square(sums)) - 1) * np.sqrt(sums.size / 2)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_rows_columns_and_diagonals_keep_what_chance_would(rate):
    """Their sums scatter as those of independent numbers; none of them stands out."""
    size = 600
    values = standardised(3, rate, queries=range(5000, 5000 + size), keys=range(size))
    diagonals = {
        name: np.array(
            [
                np.sum(square.diagonal(k)) / np.sqrt(size - abs(k))
                for k in range(-size // 2, size // 2)
            ]
        )
        for name, square in (("diagonals", values), ("antidiagonals", values[:, ::-1]))
    }
    rows, columns = (values.sum(axis) / np.sqrt(size) for axis in (1, 0))
    for sums in (rows, columns, *diagonals.values()):
        assert abs(scatter(sums)) < 4
        assert np.abs(sums).max() < 5


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_neighbours_do_not_tell_of_each_other(rate):
    """Neighbouring queries and keys, the corners of squares, and any two queries or keys."""
    size = 600
    values = standardised(4, rate, queries=range(size), keys=range(70_000, 70_000 + size))
    across, along = values[:-1] * values[1:], values[:, :-1] * values[:, 1:]
    for products in (across, along, across[:, :-1] * across[:, 1:]):
        assert abs(products.mean() * np.sqrt(products.size)) < 4
    pairs = np.triu_indices(size, 1)
    for matrix in (values, values.T):
        correlations = (matrix @ matrix.T / np.sqrt(size))[pairs]
        # Of 359,400 pairs chance has one beyond this once in a thousand times.
        assert np.abs(correlations).max() < {0.1: 8.5, 0.5: 6.0}[rate]
        assert abs(correlations.mean() * np.sqrt(correlations.size)) < 4


def test_heads_rows_and_dropout_keys_do_not_tell_of_each_other():
    masks = [mask(seed, 0.5, range(2), range(3), range(64), range(64)) for seed in range(30)]
    values = 2.0 * np.concatenate(masks).reshape(30 * 6, -1) - 1
    correlations = (values @ values.T / np.sqrt(values.shape[1]))[np.triu_indices(len(values), 1)]
    assert np.abs(correlations).max() < 5
    assert abs(scatter(correlations)) < 4


def test_sequences_longer_than_65536_do_not_repeat():
    """As counters of 32 bits for pairs of positions would."""
    near = mask(queries=range(64), keys=range(64))
    far = mask(queries=range(2**16, 2**16 + 64), keys=range(64))
    assert 0.5 < (near == far).mean() < 0.66  # 0.3 ** 2 + 0.7 ** 2 = 0.58


@pytest.mark.parametrize("axis", ["queries", "keys"])
def test_far_places_differ(axis):
    """Positions that differ in one bit of 17, and those beside them."""
    places = np.unique([[2**bit, 2**bit + 1] for bit in range(1, 17)])
    other = {"queries": range(800), "keys": range(800)}
    values = standardised(5, 0.5, **(other | {axis: places.tolist()}))
    values = values if axis == "queries" else values.T
    correlations = (values @ values.T / np.sqrt(800))[np.triu_indices(len(values), 1)]
    assert np.abs(correlations).max() < 4.5
    assert abs(scatter(correlations)) < 4


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
