import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spade_jax.ops import toeplitz as module
from spade_jax.ops.toeplitz import toeplitz


@pytest.mark.parametrize("way", ["by reshaping", "by tiles", "by tiles of 2"])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 4), (4, 1), (3, 5), (5, 3), (83, 7)])
def test_entries_and_gradient_go_by_the_diagonal(monkeypatch, way, rows, columns):
    if way != "by reshaping":
        monkeypatch.setattr(module.partition, "platform", lambda: "tpu")
        monkeypatch.setattr(module, "_SIDE", 2 if way.endswith("2") else 128)
    diagonals = np.arange(2.0 * (rows + columns - 1)).reshape(2, -1).astype(np.float32)
    place = rows - 1 - np.arange(rows)[:, None] + np.arange(columns)[None]
    matrices, pullback = jax.vjp(lambda diagonals: toeplitz(diagonals, rows), diagonals)
    np.testing.assert_array_equal(matrices, diagonals[:, place])
    cotangent = np.random.default_rng(0).normal(size=matrices.shape).astype(np.float32)
    expected = np.zeros_like(diagonals)
    np.add.at(expected, (slice(None), place), cotangent)
    np.testing.assert_allclose(pullback(jnp.asarray(cotangent))[0], expected, rtol=1e-5, atol=1e-6)


def test_tiles_are_exact(monkeypatch):
    """Of any float32, and of what is infinite as far as that goes."""
    diagonals = np.random.default_rng(0).normal(size=(3, 700)).astype(np.float32)
    diagonals[:, ::7] *= 1e-30
    expected = np.asarray(toeplitz(diagonals, 301))
    monkeypatch.setattr(module.partition, "platform", lambda: "tpu")
    np.testing.assert_array_equal(toeplitz(diagonals, 301), expected)
    hidden = np.asarray(toeplitz(np.float32([-np.inf, 1.0, np.inf]), 2))
    np.testing.assert_array_equal(hidden, [[1.0, 2.0**126], [-(2.0**126), 1.0]])
