"""Chunk attention against its definition, with a mask over all pairs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from arrays import normal
from implementations import interpretable, named

from spade_jax.ops import dispatch
from spade_jax.ops.attention.chunk import chunk_attention
from spade_jax.ops.attention.chunk_numbers import number_chunks
from spade_jax.ops.attention.full import FULL_ATTENTION, full_attention
from spade_jax.ops.attention.weights import laplace
from spade_jax.ops.dispatch import Unsupported

SIZE, LENGTH, HEADS = 5, 21, 2
# One after the other as in training data; and then with chunks that begin anywhere.
PADDED = np.array([[1] * 21, [1] * 12 + [0] * 9, [1] * 10 + [2] * 8 + [0] * 3], np.int32)
PACKED = np.array([[1] * 7 + [2] * 2 + [0] * 2 + [3] * 9 + [0], [0] * 2 + [1] * 19, [0] * 21])


def chunk_numbers(segment_ids, size=SIZE):
    """By going from token to token."""
    numbers = np.zeros_like(segment_ids)
    for row, segments in zip(numbers, segment_ids):
        number, position, before = 0, 0, 0
        for i, segment in enumerate(segments):
            if segment not in (0, before):
                position, before = 0, segment
            number += position % size == 0
            position += 1
            row[i] = number * (segment != 0)
    return numbers


def dense(query, key, value, bias, visible, weights):
    scores = jnp.einsum("bqhk,bjhk->bhqj", query, key, precision="highest")
    if weights != "softmax":
        scores = scores / jnp.maximum(visible.sum(axis=-1, keepdims=True), 1)
    relative = np.arange(LENGTH)[None] - np.arange(LENGTH)[:, None]
    scores = scores + bias[:, np.clip(relative + SIZE - 1, 0, 2 * SIZE - 2)][None]
    if weights == "softmax":
        shares = jax.nn.softmax(jnp.where(visible, scores, -1e30), axis=-1)
    elif weights == "relu2":
        shares = jnp.maximum(scores, 0) ** 2
    else:
        shares = (1 + jax.lax.erf((scores - 0.5**0.5) * (2 * np.pi) ** 0.5)) / 2
    shares = jnp.where(visible, shares, 0)
    return jnp.einsum("bhqj,bjhk->bqhk", shares, value, precision="highest")


@pytest.mark.parametrize(
    ("causal", "weights"), [(False, "softmax"), (True, "laplace"), (False, "relu2")]
)
def test_chunks_are_those_of_the_definition(causal, weights):
    """In value and gradient, where they lie at multiples of their size and where not."""
    query, key = (normal((3, LENGTH, HEADS, 4), seed=i) for i in range(2))
    value = normal((3, LENGTH, HEADS, 6), seed=2)  # Of another width.
    bias = normal((HEADS, 2 * SIZE - 1), seed=3)
    before = np.tril(np.ones((LENGTH, LENGTH), bool))

    @jax.jit
    def compute(arrays, segment_ids, visible):
        weight = normal(value.shape, seed=4) * (segment_ids != 0)[..., None, None]

        def by_definition(*arrays):
            return jnp.sum(dense(*arrays, visible, weights) * weight)

        def by_chunks(*arrays):
            *tokens, bias = arrays
            settings = {"size": SIZE, "causal": causal, "bias": bias, "weights": weights}
            return jnp.sum(chunk_attention(*tokens, segment_ids=segment_ids, **settings) * weight)

        of_all = (0, 1, 2, 3)
        return [jax.value_and_grad(f, of_all)(*arrays) for f in (by_definition, by_chunks)]

    for segment_ids in (PADDED, PACKED):
        numbers = chunk_numbers(segment_ids)
        visible = (numbers[:, :, None] == numbers[:, None]) & (numbers[:, None] != 0)
        visible &= before | (not causal)
        expected, found = compute((query, key, value, bias), segment_ids, visible[:, None])
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
            np.testing.assert_allclose(one, other, atol=3e-5, rtol=1e-5)


def test_numbers_go_on_from_piece_to_piece():
    segment_ids = np.concatenate([PADDED, PACKED]).astype(np.int32)
    number = jax.jit(number_chunks, static_argnums=1)
    numbers, start, after = number(segment_ids, SIZE)
    np.testing.assert_array_equal(numbers, chunk_numbers(segment_ids))
    np.testing.assert_array_equal(start[3, :7], 0)
    np.testing.assert_array_equal(start[3, 11:], 11)
    place, parts = None, []
    for piece in np.split(segment_ids, (1, 4, 15), axis=1):
        part, _, place = number(piece, SIZE, place)
        parts.append(part)
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), numbers)
    jax.tree.map(np.testing.assert_array_equal, place, after)


@pytest.mark.parametrize("name", interpretable(FULL_ATTENTION))
def test_every_implementation_takes_chunks(name):
    query, key, value = (normal((1, 64, 2, 16), seed=i) for i in range(3))
    settings = {"causal": True, "bias": normal((2, 31), seed=3)}
    with dispatch.interpreted():
        attend = named(full_attention, name)
        y = jax.jit(lambda *arrays: attend(*arrays, chunk_size=16, **settings))(query, key, value)
    folded = (x.reshape(4, 16, 2, 16) for x in (query, key, value))
    expected = full_attention(*folded, implementation="xla", **settings)
    np.testing.assert_allclose(y, expected.reshape(y.shape), atol=2e-5)


def test_laplace_is_its_formula_where_it_is_small_too():
    x = np.linspace(-1.2, 3, 50, dtype=np.float32)
    exact = scipy.special.erfc((0.5**0.5 - x.astype(float)) / ((1 / (4 * np.pi)) ** 0.5 * 2**0.5))
    np.testing.assert_allclose(laplace(jnp.asarray(x)), exact / 2, rtol=1e-4)
    assert exact[0] / 2 < 1e-9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 1}, r"size = 1: must be at least 2"),
        ({"bias": np.zeros((2, 9), np.float32)}, r"bias.shape = \(2, 9\): must be \[h, 2 \* size"),
        ({"weights": "sparsemax"}, r"weights = 'sparsemax': must be one of 'softmax', 'laplace'"),
        (
            {"weights": "relu2", "implementation": "pallas_gpu"},
            r"'pallas_gpu' gives weights by softmax, and these are by relu2; xla can",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(changes, message):
    arrays = [normal((1, 8, 2, 16)) for _ in range(3)]
    with dispatch.interpreted(), pytest.raises(ValueError, match=message):
        chunk_attention(*arrays, **{"size": 4, "causal": False} | changes)
    with pytest.raises(ValueError, match=r"chunk_size = 3: must divide the sequence, of 8 queries"):
        full_attention(*arrays, causal=False, chunk_size=3)
    assert issubclass(Unsupported, ValueError)
