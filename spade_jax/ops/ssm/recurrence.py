"""The recurrence itself, token by token: what the other ways are held against."""

import jax
import jax.numpy as jnp

from spade_jax.ops.ssm.discrete import DiscreteStateSpace
from spade_jax.ops.ssm.transition import einsum, like


def run(
    system: DiscreteStateSpace, c: jax.Array, u: jax.Array, runs: jax.Array | None
) -> jax.Array:
    """u [s, b, l, d], c [s, c, d, n] -> y [s, b, l, c, d]."""
    streams, batch, length, d = u.shape
    if runs is None:
        runs = jnp.zeros((streams, batch, length), jnp.int32)
    keep = jnp.pad(runs[:, :, 1:] == runs[:, :, :-1], ((0, 0), (0, 0), (1, 0)))

    def token(state: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        u_t, keep_t = inputs
        state = system.a.apply(state * keep_t[..., None, None])
        state = state + like(system.b, state) * u_t[..., None]
        return state, einsum("scdn,sbdn->sbcd", c, state)

    initial = jnp.zeros((streams, batch, d, c.shape[-1]), u.dtype)
    inputs = (jnp.moveaxis(u, 2, 0), jnp.moveaxis(keep.astype(u.dtype), 2, 0))
    return jnp.moveaxis(jax.lax.scan(token, initial, inputs)[1], 0, 2)
