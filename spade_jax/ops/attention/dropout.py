"""Dropout of attention probabilities that knows nothing of blocks, spans or shards."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.random import threefry2x32_p

from spade_jax.ops.checks import check


def check_dropout(rate: float, key: Array | None) -> None:
    """Raises ValueError for a rate outside [0, 1), or one that lacks a key."""
    check(0.0 <= rate < 1.0, "dropout_rate", rate, "must be in [0, 1)")
    check(rate == 0.0 or key is not None, "dropout_rate", rate, "must be 0 without a dropout_key")


def kept(key: Array, rate: float, *, queries: Array, keys: Array) -> Array:
    """Which probabilities dropout keeps, each by the dropout key and its own place alone.

    So that they are the same ones however the computation is cut up. Threefry (Salmon et al., 2011)
    with the places as counters.

    Args:
      key: of `jax.random`.
      rate: which share is dropped.
      queries: numbers of the queries, see `number_queries`, uint32 [..., q, 1].
      keys: positions of the keys in the sequence, int32, of a shape that broadcasts to [..., q, j].

    Returns:
      Bool [..., q, j].
    """
    low, high = jax.random.bits(key, (2,), jnp.uint32)
    shape = jnp.broadcast_shapes(queries.shape, keys.shape)
    bits, _ = threefry2x32_p.bind(
        low,
        high,
        *(jnp.broadcast_to(place.astype(jnp.uint32), shape) for place in (queries, keys)),
    )
    return bits < jnp.uint32(min(round((1.0 - rate) * 2**32), 2**32 - 1))


def number_queries(
    rows: Array, heads: Array, positions: Array, *, num_heads: int, length: int
) -> Array:
    """Numbers the queries of an array [b, h, l], modulo 2 ** 32.

    Args:
      rows, heads, positions: where the ones at hand lie along each axis, int32 vectors.
      num_heads, length: of the whole array.

    Returns:
      uint32 [rows, heads, positions].
    """
    rows, heads, positions = (place.astype(jnp.uint32) for place in (rows, heads, positions))
    row_and_head = rows[:, None] * num_heads + heads[None]
    return row_and_head[..., None] * length + positions[None, None]
