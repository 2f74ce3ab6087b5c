"""What the compiled programs need beside their arguments and results; nothing is run."""

import itertools

import jax
import jax.numpy as jnp
import pytest
from dense_window import dense_window_attention

from spade_jax.ops.attention.window import window_attention

RADIUS, HEADS, SIZE = 127, 12, 64


def temporary_bytes(attention, length, backward, causal):
    def total(query, key, value):
        return jnp.sum(attention(query, key, value, radius=RADIUS, causal=causal))

    array = jax.ShapeDtypeStruct((1, length, HEADS, SIZE), jnp.float32)
    function = jax.grad(total, (0, 1, 2)) if backward else total
    compiled = jax.jit(function).lower(array, array, array).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("backward", [False, True])
def test_memory_grows_linearly_with_the_length(backward, causal):
    lengths = (4096, 8192, 16384, 32768)
    needed = [temporary_bytes(window_attention, length, backward, causal) for length in lengths]
    doubling = [after / before for before, after in itertools.pairwise(needed)]
    # Below 2, as every length needs the scores of one span once, and then 2 more and more nearly.
    assert max(doubling) < 2.02
    assert doubling[-1] > 1.85
    # A few arrays as big as the queries; the scores of all windows at once are four to six alone.
    assert needed[-1] < 6 * 4 * lengths[-1] * HEADS * SIZE


@pytest.mark.parametrize("backward", [False, True])
def test_dense_attention_grows_quadratically(backward):
    """The measure of the test above tells the two apart."""
    short, long = (
        temporary_bytes(dense_window_attention, length, backward, False) for length in (2048, 4096)
    )
    assert long / short == pytest.approx(4, rel=0.05)
    assert long > HEADS * 4 * 4096**2


def test_no_probabilities_are_kept_for_the_backward_pass():
    length, radius = 3000, 31

    def attend(query, key, value):
        return window_attention(query, key, value, radius=radius, causal=False)

    array = jnp.zeros((1, length, 1, 2))
    kept = jax.tree.leaves(jax.eval_shape(lambda *a: jax.vjp(attend, *a)[1], array, array, array))
    sizes = [leaf.size for leaf in kept]
    assert sum(sizes) >= 3 * array.size
    # One kept number for each key that a block reads would be 96 for each position.
    assert sum(sizes) < 12 * length
