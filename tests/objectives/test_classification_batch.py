"""Batches of classification: what they hold, and which of their inputs are real."""

import jax.numpy as jnp
import numpy as np
import pytest

from spade_jax.objectives.classification_batch import PairBatch, ScalarBatch, TokenBatch

TOKENS = np.array([[5, 6, 1], [7, 0, 0], [0, 0, 0]], np.int32)
LABELS = np.array([1, 0, 0], np.int32)
WEIGHTS = np.array([1, 1, 0], np.int32)
BATCHES = (
    TokenBatch(LABELS, WEIGHTS, TOKENS),
    PairBatch(LABELS, WEIGHTS, TOKENS, TOKENS[::-1]),
    ScalarBatch(LABELS, WEIGHTS, TOKENS.astype(np.float32) / 4, np.array([3, 3, 0], np.int32)),
)


@pytest.mark.parametrize("batch", BATCHES, ids=lambda batch: type(batch).__name__)
def test_types_are_those_of_a_batch(batch):
    arrays = batch.named()
    assert type(batch).of(arrays) == batch
    assert type(batch).types(3, (3,)) == {n: (a.shape, str(a.dtype)) for n, a in arrays.items()}
    longer = batch.each("inputs", lambda array: np.pad(array, ((0, 0), (0, 2)))).named()
    assert type(batch).types(3, (5,)) == {n: (a.shape, str(a.dtype)) for n, a in longer.items()}


def test_padding_is_no_input_and_a_black_pixel_is_one():
    tokens, pairs, scalars = BATCHES
    ((inputs, real),) = tokens.towers
    np.testing.assert_array_equal(inputs, TOKENS)
    np.testing.assert_array_equal(real, TOKENS > 0)
    np.testing.assert_array_equal(pairs.towers[1][1], TOKENS[::-1] > 0)
    ((_, real),) = scalars.towers
    np.testing.assert_array_equal(real, [[True] * 3, [True] * 3, [False] * 3])
    assert [batch.num_tokens for batch in BATCHES] == [4, 8, 6]


def test_of_arrays_of_jax_too():
    on_device = ScalarBatch(*(jnp.asarray(array) for array in BATCHES[2].named().values()))
    ((_, real),) = on_device.towers
    assert isinstance(real, jnp.ndarray)
    np.testing.assert_array_equal(real, BATCHES[2].towers[0][1])
