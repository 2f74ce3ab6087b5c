"""What of window attention XLA's implementation alone has: spans of queries; and its dropout."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import normal, segment_patterns
from dense_window import dense_window_attention
from window_inputs import attend, inputs, output_and_gradients

from spade_jax.ops.attention import window, window_xla


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("length", "span"), [(1, 1024), (5, 1024), (6, 1024), (23, 1), (61, 15), (1500, 1024)]
)
def test_spans_of_queries_change_nothing(monkeypatch, length, span, causal):
    """Output and every gradient; in up to five spans."""
    monkeypatch.setattr(window_xla, "_SPAN", span)
    radius = 4 if length < 1500 else 7
    segment_ids = segment_patterns(length) if length < 1500 else None
    bias = normal((2, 2 * radius + 1), seed=7)
    arguments = (*inputs(6 if length < 1500 else 1, length, size=2), bias)
    settings = dict(radius=radius, causal=causal, segment_ids=segment_ids)
    results = output_and_gradients(
        functools.partial(window.window_attention, implementation="xla"), arguments, **settings
    )
    expected = output_and_gradients(dense_window_attention, arguments, **settings)
    for result, reference in zip(results, expected):
        np.testing.assert_allclose(result, reference, rtol=0, atol=5e-5)


def attend_equally(rate, length):
    """A function of the dropout key: sums of probabilities, all equal where they are kept."""
    zeros = np.zeros((1, length, 2, 1), np.float32)

    @jax.jit
    def sums_of(key):
        sums = window.window_attention(
            zeros, zeros, zeros + 1, radius=4, causal=False, dropout_rate=rate, dropout_key=key
        )
        return sums[0, :, :, 0]

    return sums_of


def test_dropout_keeps_the_mean():
    rate = 0.3
    sums = np.asarray(attend_equally(rate, length=2000)(jax.random.key(0)))[4:-4]
    # Of 9 keys, a binomial number is kept, each with a probability of 1 / 9 / (1 - rate).
    deviation = np.sqrt(rate / (1 - rate) / 9)
    assert abs(sums.mean() - 1) < 4 * deviation / np.sqrt(sums.size)
    assert abs(sums.std() / deviation - 1) < 0.05
    kept = sums * 9 * (1 - rate)
    np.testing.assert_allclose(kept, np.round(kept), atol=1e-4)


def test_dropout_depends_on_its_key_and_the_place(monkeypatch):
    monkeypatch.setattr(window_xla, "_SPAN", 20)
    sums_of = attend_equally(0.5, length=60)
    sums = sums_of(jax.random.key(0))
    np.testing.assert_array_equal(sums, sums_of(jax.random.key(0)))
    assert (sums != sums_of(jax.random.key(1))).mean() > 0.5
    for one, other in ((sums[5:15], sums[25:35]), (sums[5:15], sums[10:20]), sums[5:-5].T):
        assert (one != other).mean() > 0.5


def test_dropout_at_rate_zero_is_none():
    arrays, settings = inputs(1, 30), dict(radius=4, causal=False)
    np.testing.assert_array_equal(
        attend(
            window.window_attention,
            *arrays,
            **settings,
            dropout_rate=0.0,
            dropout_key=jax.random.key(0),
        ),
        attend(window.window_attention, *arrays, **settings),
    )


def test_backward_pass_drops_what_the_forward_pass_dropped(monkeypatch):
    """The output is linear in the values, so that its derivative along them is itself."""
    monkeypatch.setattr(window_xla, "_SPAN", 20)
    query, key, value = inputs(2, 47)
    weight = normal(value.shape, seed=5)

    def total(value):
        return jnp.sum(
            weight
            * window.window_attention(
                query,
                key,
                value,
                radius=4,
                causal=True,
                dropout_rate=0.4,
                dropout_key=jax.random.key(3),
            )
        )

    result, gradient = jax.jit(jax.value_and_grad(total))(value)
    np.testing.assert_allclose(jnp.sum(gradient * value), result, rtol=1e-5)


@pytest.mark.parametrize(("rate", "key"), [(0.1, None), (1.0, 0), (-0.1, 0)])
def test_dropout_that_cannot_be_is_rejected(rate, key):
    key = None if key is None else jax.random.key(key)
    with pytest.raises(ValueError, match=f"dropout_rate = {rate}"):
        attend_equally(rate, length=30)(key)
