"""MEGA's biases of relative positions: vectors, by how far keys are before or behind the query."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from spade_jax.elements import normal
from spade_jax.places import place

# Of all of MEGA's matrices, and of these.
INITIAL_STD = 0.02
_LONGEST_WAVE = 10_000.0


class SimpleBias(nnx.Module):
    """A learned number for each relative position."""

    def __init__(self, reach: int, *, rngs: nnx.Rngs):
        self.table = normal(rngs, (2 * reach + 1,), INITIAL_STD, ("buckets",), decays=False)

    @place("relative bias")
    def __call__(self, reach: int) -> jax.Array:
        """Float32 [1, 2 * reach + 1], of as many places as there are in the table."""
        assert self.table.shape == (2 * reach + 1,)
        return self.table[...][None]


class RotaryBias(nnx.Module):
    """rot(alpha, i) . rot(beta, j): two learned vectors of z, turned by the positions of query and
    key, pair by pair. So it depends on j - i alone. Queries and keys themselves are not turned."""

    def __init__(self, size: int, *, rngs: nnx.Rngs):
        """size is z, even."""
        self.size = size
        self.alpha = normal(rngs, (size,), INITIAL_STD, ("head_dim",), decays=False)
        self.beta = normal(rngs, (size,), INITIAL_STD, ("head_dim",), decays=False)

    @place("relative bias")
    def __call__(self, reach: int) -> jax.Array:
        """Float32 [1, 2 * reach + 1]."""
        half = self.size // 2
        frequencies = _LONGEST_WAVE ** (-np.arange(half) / half)
        angles = np.arange(-reach, reach + 1)[:, None] * frequencies[None]
        turns = np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
        (a, b), (c, d) = (jnp.split(x[...], 2) for x in (self.alpha, self.beta))
        products = jnp.concatenate([a * c + b * d, b * c - a * d])
        return jnp.einsum("rz,z->r", turns, products, precision="highest")[None]
