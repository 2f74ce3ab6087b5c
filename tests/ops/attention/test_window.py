"""Window attention by each of its implementations, against the authors and dense attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import normal, segment_patterns
from dense_window import dense_window_attention, visible_pairs
from dropped import dropped
from golden_data import OUTPUT_TOLERANCE, Golden, output_error
from implementations import interpretable, named
from window_inputs import attend, inputs, output_and_gradients

from spade_jax.ops import dispatch
from spade_jax.ops.attention import window
from spade_jax.ops.attention.buckets import relative_position_buckets
from spade_jax.ops.dispatch import Unsupported


@pytest.fixture(params=interpretable(window.WINDOW_ATTENTION))
def window_attention(request):
    """The operation by each implementation: all do what every test with this says, or refuse."""
    with dispatch.interpreted():
        yield named(window.window_attention, request.param)


@pytest.mark.parametrize(
    "name",
    [
        "local_attention_bidir_bias",
        "local_attention_causal_bias",
        "local_attention_causal_nobias",
        "local_attention_t5_r3",
        "local_attention_t5_r7",
    ],
)
def test_attention_is_that_of_the_authors(window_attention, name):
    golden = Golden(name)
    radius, heads = (golden.config[setting] for setting in ("local_radius", "num_heads"))
    causal = golden.config.get("is_decoder", False)
    bias = None
    if "param/relative_attention_bias.weight" in golden:
        buckets = relative_position_buckets(
            np.arange(-radius, radius + 1),
            bidirectional=not causal,
            num_buckets=golden.config["num_buckets"],
            max_distance=golden.config["max_distance"],
        )
        bias = golden["param/relative_attention_bias.weight"][buckets].T
        # The authors make them for each query of a block and each key of three blocks.
        block = radius + 1
        relative = np.arange(-block, 2 * block)[None, :] - np.arange(block)[:, None]
        near = np.abs(relative) <= radius
        place = relative[near] + radius
        np.testing.assert_array_equal(buckets[place], golden["out/bucket_table"][near])
        np.testing.assert_array_equal(bias[:, place], golden["out/relative_bias"][0, 0][:, near])
    x = golden["in/x"]
    query, key, value = (
        (x @ golden[f"param/{weight}.weight"].T).reshape(*x.shape[:2], heads, -1)
        for weight in ("q", "k", "v")
    )

    @jax.jit
    def layer(segment_ids):
        attended = window_attention(
            query * query.shape[-1] ** -0.5,
            key,
            value,
            radius=radius,
            causal=causal,
            segment_ids=segment_ids,
            bias=bias,
        )
        return attended.reshape(x.shape) @ golden["param/o.weight"].T

    valid = golden["in/valid"]
    assert output_error(layer(valid), golden["out/y"], where=valid) < OUTPUT_TOLERANCE
    assert output_error(layer(None), golden["out/y_nopad"]) < OUTPUT_TOLERANCE


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("length", "radius"), [(3, 4), (23, 4), (61, 20)])
def test_window_is_dense_attention_under_a_mask(window_attention, length, radius, causal):
    """Output and every gradient; whole, padded, packed, and rows that see nothing."""
    segment_ids = segment_patterns(length)
    bias = normal((2, 2 * radius + 1), seed=7)
    arguments = (*inputs(len(segment_ids), length), bias)
    settings = dict(radius=radius, causal=causal, segment_ids=segment_ids)
    results = output_and_gradients(window_attention, arguments, **settings)
    expected = output_and_gradients(dense_window_attention, arguments, **settings)
    for result, reference in zip(results, expected):
        np.testing.assert_allclose(result, reference, rtol=0, atol=2e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_batch_of_one_without_bias_or_segments(window_attention, causal):
    arguments = (*inputs(1, 75, heads=1), None)
    settings = dict(radius=7, causal=causal)
    results = output_and_gradients(window_attention, arguments, **settings)
    expected = output_and_gradients(dense_window_attention, arguments, **settings)
    assert len(results) == len(expected) == 5
    for result, reference in zip(results[:4], expected[:4]):
        np.testing.assert_allclose(result, reference, rtol=0, atol=2e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_who_sees_whom(window_attention, causal):
    """With one-hot values the output is the matrix of probabilities."""
    length, radius = 32, 3
    segment_ids = segment_patterns(length)
    query, key, _ = inputs(len(segment_ids), length, heads=1, size=length)
    one_hot = np.broadcast_to(
        np.eye(length, dtype=np.float32)[None, :, None], (len(segment_ids), length, 1, length)
    )
    probabilities = attend(
        window_attention, query, key, one_hot, radius=radius, causal=causal, segment_ids=segment_ids
    )[:, :, 0]
    visible = visible_pairs(length, radius, causal, segment_ids)
    np.testing.assert_array_equal(probabilities > 0, visible)
    np.testing.assert_allclose(probabilities.sum(-1), visible.any(-1), atol=1e-6)


def test_bias_goes_by_the_distance(window_attention):
    """A bias that grows with the distance pulls every query towards its nearest keys alike."""
    radius, length = 3, 32
    zeros = np.zeros((1, length, 1, length), np.float32)
    one_hot = np.eye(length, dtype=np.float32)[None, :, None]
    bias = -np.abs(np.arange(-radius, radius + 1, dtype=np.float32))[None]
    probabilities = attend(
        window_attention, zeros, zeros, one_hot, radius=radius, causal=False, bias=bias
    )
    decay = np.exp(-np.abs(np.arange(-radius, radius + 1.0)))
    for i in range(radius, length - radius):
        near = probabilities[0, i, 0, i - radius : i + radius + 1]
        np.testing.assert_allclose(near, decay / decay.sum(), atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
def test_padding_changes_nothing(window_attention, causal):
    """Neither its presence nor what it holds."""
    short, padded, radius = 11, 30, 4
    query, key, value = inputs(2, padded)
    segment_ids = np.broadcast_to((np.arange(padded) < short).astype(np.int32), (2, padded))

    def gradients(length, segment_ids, fill):
        def total(query, key, value):
            output = window_attention(
                query, key, value, radius=radius, causal=causal, segment_ids=segment_ids
            )
            return jnp.sum(jnp.sin(output[:, :short])), output

        cut = [
            np.where(np.arange(padded)[:, None, None] < short, a, fill) for a in (query, key, value)
        ]
        (_, output), gradients = jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))(
            *(array[:, :length] for array in cut)
        )
        return output, *gradients

    expected = gradients(short, None, 0.0)
    for fill in (0.0, 1e4):
        for result, reference in zip(gradients(padded, segment_ids, fill), expected):
            np.testing.assert_allclose(result[:, :short], reference, rtol=0, atol=1e-6)
            np.testing.assert_array_equal(result[:, short:], 0.0)


@pytest.mark.parametrize("causal", [False, True])
def test_packed_segments_are_separate_ones(window_attention, causal):
    lengths, radius = (7, 12, 4), 5
    bias = normal((2, 2 * radius + 1), seed=3)
    arrays = inputs(1, sum(lengths))
    segment_ids = np.repeat([3, 1, 2], lengths)[None].astype(np.int32)
    packed = attend(
        window_attention, *arrays, radius=radius, causal=causal, segment_ids=segment_ids, bias=bias
    )
    ends = np.cumsum(lengths)
    for start, end in zip(ends - lengths, ends):
        alone = attend(
            window_attention,
            *(array[:, start:end] for array in arrays),
            radius=radius,
            causal=causal,
            bias=bias,
        )
        np.testing.assert_allclose(packed[:, start:end], alone, rtol=0, atol=1e-6)


def test_causal_output_has_no_gradient_ahead(window_attention):
    length, radius = 21, 4
    arrays = inputs(1, length, heads=1)

    @jax.jit
    @jax.vmap
    def gradients(position):
        def one(key, value):
            output = window_attention(arrays[0], key, value, radius=radius, causal=True)
            return jnp.sum(jnp.sin(output[0, position]))

        return jax.grad(one, (0, 1))(*arrays[1:])

    by_key, by_value = (jnp.abs(g).sum((1, 3, 4)) for g in gradients(jnp.arange(length)))
    visible = visible_pairs(length, radius, causal=True)[0]
    np.testing.assert_array_equal(by_value > 0, visible)
    # The first query sees one key, whose probability is one whatever it holds.
    np.testing.assert_array_equal(by_key[1:] > 0, visible[1:])
    assert not by_key[0].any()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("length", [3, 20])
def test_rows_that_see_nothing_are_zero_and_their_gradients_too(window_attention, dtype, length):
    arrays = [jnp.asarray(10 * a, dtype) for a in inputs(2, length)]
    bias = jnp.asarray(normal((2, 9)))
    segment_ids = np.zeros((2, length), np.int32)
    segment_ids[1, -2:] = 1

    def total(arrays, bias):
        output = window_attention(
            *arrays, radius=4, causal=False, segment_ids=segment_ids, bias=bias
        )
        assert output.dtype == dtype
        return jnp.sum(jnp.square(output.astype(jnp.float32))), output

    (_, output), (gradients, bias_gradient) = jax.jit(
        jax.value_and_grad(total, (0, 1), has_aux=True)
    )(arrays, bias)
    for array in (output, *gradients):
        array = np.asarray(array, np.float32)
        np.testing.assert_array_equal(array[segment_ids == 0], 0.0)
        assert np.isfinite(array).all()
    assert np.isfinite(bias_gradient).all()
    assert np.abs(np.asarray(output, np.float32)[1, -2:]).min() > 0


def test_bfloat16_is_float32_rounded(window_attention):
    query, key, value = (jnp.asarray(a, jnp.bfloat16) for a in inputs(2, 50, heads=2, size=16))
    bias = normal((2, 15), seed=7)
    narrow = output_and_gradients(
        window_attention, (query, key, value, bias), radius=7, causal=False
    )
    wide = output_and_gradients(
        window_attention,
        (*(a.astype(jnp.float32) for a in (query, key, value)), bias),
        radius=7,
        causal=False,
    )
    assert [a.dtype for a in narrow] == ["bfloat16"] * 4 + ["float32"]
    for result, reference in zip(narrow, wide):
        scale = np.abs(reference).max()
        np.testing.assert_allclose(
            np.asarray(result, np.float32) / scale, reference / scale, rtol=0, atol=2e-2
        )


@pytest.mark.parametrize("causal", [False, True])
def test_dropout_is_the_same_whatever_computes_it(window_attention, causal):
    """Each probability by the definition of what is kept: output and every gradient."""
    radius, length, rate, key = 8, 45, 0.3, jax.random.key(5)
    arguments = (*inputs(6, length), normal((2, 2 * radius + 1), seed=7))
    settings = dict(radius=radius, causal=causal, segment_ids=segment_patterns(length))
    results = output_and_gradients(
        window_attention, arguments, dropout_rate=rate, dropout_key=key, **settings
    )
    kept = dropped(rate, key, rows=6, heads=2, queries=length, keys=length)
    expected = output_and_gradients(dense_window_attention, arguments, kept=kept, **settings)
    for result, reference in zip(results, expected):
        np.testing.assert_allclose(result, reference, rtol=0, atol=2e-5)


@pytest.mark.parametrize("radius", [0, -3])
def test_radius_below_one_is_rejected(window_attention, radius):
    with pytest.raises(ValueError, match=f"radius = {radius}: must be at least 1"):
        window.window_attention(*inputs(1, 5), radius=radius, causal=False)


def test_bias_of_another_radius_is_rejected(window_attention):
    with pytest.raises(ValueError, match=r"\(2, 9\) for radius = 4"):
        window.window_attention(*inputs(1, 20), radius=4, causal=True, bias=normal((2, 7)))


def test_an_implementation_that_cannot_do_what_is_asked_says_so():
    """By its name; unset, another one does it."""
    arrays = inputs(1, 9)
    settings = {"radius": 3, "causal": False}
    dropout = {"dropout_rate": 0.1, "dropout_key": jax.random.key(0)}
    with pytest.raises(Unsupported, match=r"window attention: .*'dense' has no dropout; xla can"):
        window.window_attention(*arrays, **settings, **dropout, implementation="dense")
    with pytest.raises(
        Unsupported, match=r"no implementation 'denes'; must be one of xla, [\w, ]+, dense"
    ):
        window.window_attention(*arrays, **settings, implementation="denes")
    assert window.window_attention(*arrays, **settings, **dropout).shape == arrays[0].shape
