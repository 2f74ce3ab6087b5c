import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spade_jax.ops.attention import full_xla
from spade_jax.ops.attention.full import full_attention


def normal(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def inputs(queries, keys, batch=2, heads=2, size=4):
    lengths = (queries, keys, keys)
    return tuple(normal((batch, n, heads, size), (n, i)) for i, n in enumerate(lengths))


def by_hand(query, key, value, visible, bias=0.0):
    """One query at a time in float64; `visible` is bool [b, q, j]."""
    output = np.zeros(query.shape)
    bias = np.broadcast_to(bias, (query.shape[2], 2 * key.shape[1] - 1))
    for b, i, h in np.ndindex(query.shape[:3]):
        keys = np.flatnonzero(visible[b, i])
        if keys.size:
            scores = (
                key[b, keys, h].astype(float) @ query[b, i, h]
                + bias[h, keys - i + key.shape[1] - 1]
            )
            weights = np.exp(scores - scores.max())
            output[b, i, h] = weights / weights.sum() @ value[b, keys, h]
    return output


QUERY_SEGMENTS = np.array([[1, 1, 2, 0, 2, 1], [1, 2, 2, 3, 3, 0]], np.int32)
KEY_SEGMENTS = np.array([[1, 2, 2, 0, 0, 1, 2, 0], [3, 3, 2, 1, 1, 2, 0, 0]], np.int32)


def test_without_masks_every_key_is_seen():
    arguments = inputs(6, 8)
    output = full_attention(*arguments, causal=False)
    expected = by_hand(*arguments, np.ones((2, 6, 8), bool))
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-6)


def test_cross_attention_stays_within_segments():
    arguments = inputs(6, 8)
    output = full_attention(
        *arguments, causal=False, query_segment_ids=QUERY_SEGMENTS, key_segment_ids=KEY_SEGMENTS
    )
    same = QUERY_SEGMENTS[:, :, None] == KEY_SEGMENTS[:, None, :]
    visible = same & (KEY_SEGMENTS != 0)[:, None, :]
    assert not visible[0, 3].any()
    np.testing.assert_allclose(output, by_hand(*arguments, visible), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(output[0, 3], 0.0)


def test_key_segments_alone_hide_padding_and_nothing_else():
    arguments = inputs(6, 8)
    output = full_attention(*arguments, causal=False, key_segment_ids=KEY_SEGMENTS)
    visible = np.broadcast_to((KEY_SEGMENTS != 0)[:, None, :], (2, 6, 8))
    np.testing.assert_allclose(output, by_hand(*arguments, visible), rtol=0, atol=1e-6)


def test_causal_self_attention_with_packed_segments():
    arguments, bias = inputs(6, 6), normal((2, 11), 9)
    output = full_attention(
        *arguments,
        causal=True,
        query_segment_ids=QUERY_SEGMENTS,
        key_segment_ids=QUERY_SEGMENTS,
        bias=bias,
    )
    same = QUERY_SEGMENTS[:, :, None] == QUERY_SEGMENTS[:, None, :]
    visible = same & (QUERY_SEGMENTS != 0)[:, None, :] & np.tri(6, dtype=bool)[None]
    np.testing.assert_allclose(output, by_hand(*arguments, visible, bias), rtol=0, atol=1e-6)


@pytest.mark.parametrize("span", [1, 3, 5])
@pytest.mark.parametrize("causal", [False, True])
def test_spans_of_queries_change_nothing(monkeypatch, span, causal):
    """Output and every gradient, with segments, a bias and dropout."""
    weight = normal((2, 8, 2, 4), 5)
    segment_ids = np.array([[1, 1, 2, 0, 2, 1, 1, 0], [1, 2, 2, 3, 3, 0, 3, 3]], np.int32)

    def results():
        def total(query, key, value, bias):
            output = full_attention(
                query,
                key,
                value,
                causal=causal,
                query_segment_ids=segment_ids,
                key_segment_ids=segment_ids,
                bias=bias,
                dropout_rate=0.3,
                dropout_key=jax.random.key(0),
            )
            return jnp.sum(output * weight), output

        (_, output), gradients = jax.value_and_grad(total, (0, 1, 2, 3), has_aux=True)(
            *inputs(8, 8), normal((2, 15), 9)
        )
        return output, *gradients

    expected = results()
    monkeypatch.setattr(full_xla, "_SPAN", span)
    for result, reference in zip(results(), expected):
        np.testing.assert_allclose(result, reference, rtol=0, atol=2e-6)


def test_gradients_of_keys_in_bfloat16_are_summed_over_spans_in_float32(monkeypatch):
    """Each of 512 queries adds as much to the gradient of a value."""
    monkeypatch.setattr(full_xla, "_SPAN", 1)
    zeros = jnp.zeros((1, 512, 1, 1), jnp.bfloat16)

    def total(value):
        return jnp.sum(full_attention(zeros, zeros, value, causal=False).astype(jnp.float32))

    gradient = jax.jit(jax.grad(total))(zeros)
    np.testing.assert_array_equal(np.asarray(gradient, np.float32), 1.0)


def test_gradients_ahead_of_causal_queries_are_zero():
    query, key, value = inputs(6, 6, batch=1, heads=1)
    for position in range(6):

        def one(key, value, position=position):
            return jnp.sum(full_attention(query, key, value, causal=True)[0, position] ** 2)

        for gradient in jax.grad(one, (0, 1))(key, value):
            np.testing.assert_array_equal(gradient[0, position + 1 :], 0.0)
        assert np.abs(gradient[0, : position + 1]).min() > 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_gradients_of_rows_without_keys_are_zero(dtype):
    arguments = [jnp.asarray(a, dtype) for a in inputs(6, 8)]
    hidden = np.zeros_like(KEY_SEGMENTS)
    hidden[1] = KEY_SEGMENTS[1]

    def total(*arguments):
        output = full_attention(*arguments, causal=False, key_segment_ids=hidden)
        assert output.dtype == dtype
        return jnp.sum(output.astype(jnp.float32) ** 2)

    for gradient in jax.grad(total, (0, 1, 2))(*arguments):
        gradient = np.asarray(gradient, np.float32)
        np.testing.assert_array_equal(gradient[0], 0.0)
        assert np.isfinite(gradient).all()
        assert gradient[1].any()


def test_neither_probabilities_nor_masks_are_kept_for_the_backward_pass():
    arguments = inputs(30, 30, size=2)
    segment_ids = np.ones((2, 30), np.int32)
    _, backward = jax.vjp(
        lambda *arguments: full_attention(
            *arguments,
            causal=True,
            query_segment_ids=segment_ids,
            key_segment_ids=segment_ids,
            dropout_rate=0.5,
            dropout_key=jax.random.key(0),
        ),
        *arguments,
    )
    sizes = [array.size for array in jax.tree.leaves(backward)]
    assert sum(sizes) >= sum(array.size for array in arguments)
    assert max(sizes) < 30 * 30


def test_dropout_keeps_the_mean_and_follows_its_key():
    zeros = np.zeros((1, 300, 1, 1), np.float32)

    def sums(seed):
        return np.asarray(
            full_attention(
                zeros,
                zeros,
                zeros + 1,
                causal=False,
                dropout_rate=0.25,
                dropout_key=jax.random.key(seed),
            )
        ).ravel()

    # Each is a binomial number of 300 probabilities, of 1 / 300 / 0.75 each.
    deviation = np.sqrt(0.25 / 0.75 / 300)
    assert abs(sums(0).mean() - 1) < 4 * deviation / np.sqrt(300)
    assert abs(sums(0).std() / deviation - 1) < 0.2
    np.testing.assert_array_equal(sums(0), sums(0))
    assert (sums(0) != sums(1)).mean() > 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(causal=True), "causal = True: 6 queries, 8 keys"),
        (dict(causal=False, query_segment_ids=QUERY_SEGMENTS), "key_segment_ids = None"),
        (
            dict(causal=False, bias=np.zeros((2, 15))),
            r"must be \[h, 2j - 1\] = \(2, 15\) for 6 queries",
        ),
        (dict(causal=False, dropout_rate=0.1), "dropout_rate = 0.1: must be 0 without a"),
    ],
)
def test_contradictions_are_rejected(settings, message):
    with pytest.raises(ValueError, match=message):
        full_attention(*inputs(6, 8), **settings)
