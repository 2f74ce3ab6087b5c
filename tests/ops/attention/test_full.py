"""Full attention by each of its implementations, against dense attention in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import normal, segment_patterns
from dense_full import dense_full_attention, visible_pairs
from dropped import dropped
from full_inputs import KEYS, QUERIES, SIZE, inputs
from implementations import interpretable, named

from spade_jax.ops import dispatch
from spade_jax.ops.attention import full
from spade_jax.ops.dispatch import Unsupported


@pytest.fixture(params=interpretable(full.FULL_ATTENTION))
def full_attention(request):
    """The operation by each implementation: all do what every test with this says, or refuse."""
    with dispatch.interpreted():
        yield named(full.full_attention, request.param)


def output_and_gradients(attention, arguments, **settings):
    """The output, and the gradients of its product with a fixed array by every argument."""
    weight = normal(arguments[0].shape, seed=99)
    count = len([argument for argument in arguments if argument is not None])

    def total(*arguments):
        query, key, value, *bias = arguments
        output = attention(query, key, value, bias=bias[0] if bias else None, **settings)
        return jnp.sum(output * weight), output

    (_, output), gradients = jax.jit(
        jax.value_and_grad(total, argnums=tuple(range(count)), has_aux=True)
    )(*arguments[:count])
    return output, *gradients


# Of the sequence to itself, or to other keys; `bias` is how far it tells keys apart.
CASES = {
    "causal": dict(causal=True, bias=7, segments="both"),
    "causal, bias of all": dict(causal=True, bias=KEYS - 1, segments="both"),
    "causal, nothing else": dict(causal=True, bias=None, segments=None),
    "bidirectional": dict(causal=False, bias=20, segments="both"),
    "bidirectional, bias of more": dict(causal=False, bias=KEYS + 9, segments="keys"),
    "cross": dict(causal=False, bias=None, segments="both"),
    "cross, keys hidden": dict(causal=False, bias=None, segments="keys"),
    "cross, nothing else": dict(causal=False, bias=None, segments=None),
}


def case(name):
    """Arguments and settings."""
    settings = dict(CASES[name])
    queries = QUERIES if name.startswith("cross") else KEYS
    segments = settings.pop("segments")
    if segments is not None:
        settings["key_segment_ids"] = segment_patterns(KEYS)
    if segments == "both":
        settings["query_segment_ids"] = segment_patterns(queries)
    arguments = inputs(queries, KEYS, batch=2 if segments is None else 6)
    reach = settings.pop("bias")
    bias = None if reach is None else normal((2, 2 * reach + 1), 7)
    return (*arguments, bias), settings


@pytest.mark.parametrize("name", CASES)
def test_full_attention_is_dense_attention_under_a_mask(full_attention, name):
    """Output and every gradient; whole, padded, packed, and rows that see nothing."""
    arguments, settings = case(name)
    results = output_and_gradients(full_attention, arguments, **settings)
    expected = output_and_gradients(dense_full_attention, arguments, **settings)
    assert len(results) == len(expected)
    for result, reference in zip(results, expected):
        np.testing.assert_allclose(result, reference, rtol=0, atol=2e-5)
    if settings.get("key_segment_ids") is not None:
        output, *gradients = results[:4]
        for array in (output, *gradients):
            np.testing.assert_array_equal(array[5], 0.0)  # Of segment 0 alone.


@pytest.mark.parametrize("name", ["causal", "cross"])
def test_bfloat16_is_float32_rounded(full_attention, name):
    (*arrays, bias), settings = case(name)
    narrow = [jnp.asarray(array, jnp.bfloat16) for array in arrays]
    wide = [array.astype(jnp.float32) for array in narrow]
    results = output_and_gradients(full_attention, (*narrow, bias), **settings)
    expected = output_and_gradients(dense_full_attention, (*wide, bias), **settings)
    assert [a.dtype for a in results[:4]] == ["bfloat16"] * 4
    assert [a.dtype for a in results[4:]] == ["float32"] * (bias is not None)
    for result, reference in zip(results, expected):
        scale = np.abs(reference).max()
        np.testing.assert_allclose(
            np.asarray(result, np.float32) / scale, reference / scale, rtol=0, atol=2e-2
        )


def test_who_sees_whom(full_attention):
    """With one-hot values the output is the matrix of probabilities; causal, in segments."""
    segment_ids = segment_patterns(SIZE)
    query, key, _ = inputs(SIZE, SIZE, batch=6, heads=1)
    one_hot = np.broadcast_to(np.eye(SIZE, dtype=np.float32)[None, :, None], query.shape)
    probabilities = jax.jit(
        lambda *arrays: full_attention(
            *arrays, causal=True, query_segment_ids=segment_ids, key_segment_ids=segment_ids
        )
    )(query, key, one_hot)[:, :, 0]
    visible = visible_pairs(SIZE, SIZE, True, segment_ids, segment_ids)
    np.testing.assert_array_equal(probabilities > 0, visible)
    np.testing.assert_allclose(probabilities.sum(-1), visible.any(-1), atol=1e-6)


def test_gradients_ahead_of_causal_queries_are_zero(full_attention):
    query, key, value = inputs(6, 6, batch=1, heads=1)

    @jax.jit
    @jax.vmap
    def gradients(position):
        def one(key, value):
            return jnp.sum(full_attention(query, key, value, causal=True)[0, position] ** 2)

        return jax.grad(one, (0, 1))(key, value)

    by_key, by_value = (jnp.abs(g).sum((1, 3, 4)) for g in gradients(jnp.arange(6)))
    np.testing.assert_array_equal(by_value > 0, np.tri(6, dtype=bool))
    # The first query sees one key, whose probability is one whatever it holds.
    np.testing.assert_array_equal(by_key[1:] > 0, np.tri(6, dtype=bool)[1:])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_gradients_of_rows_without_keys_are_zero(full_attention, dtype):
    arguments = [jnp.asarray(10 * a, dtype) for a in inputs(6, 8)]
    hidden = np.array([[0] * 8, [3, 3, 2, 1, 1, 2, 0, 0]], np.int32)

    @jax.jit
    def gradients(*arguments):
        def total(*arguments):
            output = full_attention(*arguments, causal=False, key_segment_ids=hidden)
            assert output.dtype == dtype
            return jnp.sum(output.astype(jnp.float32) ** 2), output

        return jax.grad(total, (0, 1, 2), has_aux=True)(*arguments)

    by_argument, output = gradients(*arguments)
    for array in (*by_argument, output):
        array = np.asarray(array, np.float32)
        np.testing.assert_array_equal(array[0], 0.0)
        assert np.isfinite(array).all()
        assert array[1].any()


def test_neither_probabilities_nor_masks_are_kept_for_the_backward_pass(full_attention):
    length = 400
    arguments = [jnp.zeros((1, length, 1, SIZE))] * 3
    segment_ids = np.ones((1, length), np.int32)

    def attend(*arguments):
        return full_attention(
            *arguments,
            causal=True,
            query_segment_ids=segment_ids,
            key_segment_ids=segment_ids,
            dropout_rate=0.5,
            dropout_key=jax.random.key(0),
        )

    kept = jax.tree.leaves(jax.eval_shape(lambda *a: jax.vjp(attend, *a)[1], *arguments))
    sizes = [array.size for array in kept]
    assert sum(sizes) >= 3 * arguments[0].size
    assert max(sizes) <= arguments[0].size < length**2


def test_dropout_keeps_the_mean_and_follows_its_key(full_attention):
    zeros = np.zeros((1, 300, 1, SIZE), np.float32)

    @jax.jit
    def sums(seed):
        attended = full_attention(
            zeros,
            zeros,
            zeros + 1,
            causal=False,
            dropout_rate=0.25,
            dropout_key=jax.random.key(seed),
        )
        return attended[0, :, 0, 0]

    # Each is a binomial number of 300 probabilities, of 1 / 300 / 0.75 each.
    deviation = np.sqrt(0.25 / 0.75 / 300)
    assert abs(sums(0).mean() - 1) < 4 * deviation / np.sqrt(300)
    assert abs(sums(0).std() / deviation - 1) < 0.2
    np.testing.assert_array_equal(sums(0), sums(0))
    assert (sums(0) != sums(1)).mean() > 0.5


@pytest.mark.parametrize("name", ["causal", "cross"])
def test_dropout_is_the_same_whatever_computes_it(full_attention, name):
    """Each probability by the definition of what is kept: output and every gradient."""
    arguments, settings = case(name)
    rate, key = 0.3, jax.random.key(5)
    results = output_and_gradients(
        full_attention, arguments, dropout_rate=rate, dropout_key=key, **settings
    )
    queries = arguments[0].shape[1]
    kept = dropped(rate, key, rows=6, heads=2, queries=queries, keys=KEYS)
    expected = output_and_gradients(dense_full_attention, arguments, kept=kept, **settings)
    for result, reference in zip(results, expected):
        np.testing.assert_allclose(result, reference, rtol=0, atol=2e-5)


QUERY_SEGMENTS = np.ones((2, 6), np.int32)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(causal=True), "causal = True: 6 queries, 8 keys"),
        (dict(causal=False, query_segment_ids=QUERY_SEGMENTS), "key_segment_ids = None"),
        (
            dict(causal=False, bias=np.zeros((2, 15))),
            r"bias.shape = \(2, 15\): .* as many queries \(6\) as keys \(8\)",
        ),
        (dict(causal=False, bias=np.zeros((3, 15))), r"bias.shape = \(3, 15\): .* of 2 heads"),
        (dict(causal=False, bias=np.zeros((2, 14))), r"bias.shape = \(2, 14\): .* \[h, 2n \+ 1\]"),
        (dict(causal=False, dropout_rate=0.1), "dropout_rate = 0.1: must be 0 without a"),
    ],
)
def test_contradictions_are_rejected(settings, message):
    with pytest.raises(ValueError, match=message):
        full.full_attention(*inputs(6, 8), **settings)


def test_an_implementation_that_is_not_there_is_refused():
    with pytest.raises(Unsupported, match=r"full attention: has no implementation 'xl'; must be"):
        full.full_attention(*inputs(6, 8), causal=False, implementation="xl")
