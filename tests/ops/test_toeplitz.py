import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spade_jax.ops.toeplitz import toeplitz


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 4), (4, 1), (3, 5), (5, 3)])
def test_entries_and_gradient_go_by_the_diagonal(rows, columns):
    diagonals = np.arange(2.0 * (rows + columns - 1)).reshape(2, -1).astype(np.float32)
    place = rows - 1 - np.arange(rows)[:, None] + np.arange(columns)[None]
    matrices, pullback = jax.vjp(lambda diagonals: toeplitz(diagonals, rows), diagonals)
    np.testing.assert_array_equal(matrices, diagonals[:, place])
    cotangent = np.random.default_rng(0).normal(size=matrices.shape).astype(np.float32)
    expected = np.zeros_like(diagonals)
    np.add.at(expected, (slice(None), place), cotangent)
    np.testing.assert_allclose(pullback(jnp.asarray(cotangent))[0], expected, rtol=1e-5, atol=1e-6)
