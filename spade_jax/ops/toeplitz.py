"""Matrices whose entries depend on the difference of row and column alone."""

import jax.numpy as jnp
from jax import Array


def toeplitz(diagonals: Array, rows: int) -> Array:
    """[..., rows + columns - 1] to [..., rows, columns], T_rc = diagonals_{rows - 1 - r + c}.

    The vector is repeated with a period one longer than the rows, so that each row comes out one
    place further to the right: pads and reshapes only, no gather (nor a scatter in its gradient).
    """
    *lead, length = diagonals.shape
    ring = jnp.concatenate([diagonals, jnp.zeros_like(diagonals[..., :1])], axis=-1)
    repeated = jnp.broadcast_to(ring[..., None, :], (*lead, rows, length + 1))
    skewed = repeated.reshape(*lead, -1)[..., : rows * length].reshape(*lead, rows, length)
    return skewed[..., rows - 1 :]
