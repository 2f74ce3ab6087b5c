"""Dropout of attention probabilities that knows nothing of blocks, spans or shards."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.random import threefry2x32_p

from spade_jax.config import require


def check_dropout(rate: float, key: Array | None) -> None:
    """Raises ConfigError for a rate outside [0, 1), or one that lacks a key."""
    require(0.0 <= rate < 1.0, "dropout_rate", rate, "must be in [0, 1)")
    require(rate == 0.0 or key is not None, "dropout_rate", rate, "must be 0 without a dropout_key")


def kept(
    key: Array, rate: float, *, rows: Array, heads: Array, queries: Array, keys: Array
) -> Array:
    """Which probabilities dropout keeps, each by the dropout key and its own place alone.

    So that they are the same ones however the computation is cut up. Threefry (Salmon et al., 2011)
    with the places as counters.

    Args:
      key: of `jax.random`.
      rate: which share is dropped.
      rows, heads: places in the batch and among the heads, int32 [b] and [h].
      queries, keys: positions in the sequence, of shapes that broadcast, [..., q, j].

    Returns:
      Bool [b, h, ..., q, j].
    """
    low, high = jax.random.bits(key, (2,), jnp.uint32)
    pair = _threefry(low, high, rows[:, None], heads[None, :])
    shape = jnp.broadcast_shapes(queries.shape, keys.shape)
    lead = (..., *[None] * len(shape))
    bits, _ = _threefry(pair[0][lead], pair[1][lead], queries, keys)
    return bits < jnp.uint32(min(round((1.0 - rate) * 2**32), 2**32 - 1))


def _threefry(*words: Array) -> list[Array]:
    """The block cipher of a key of two words and a counter of two, all of shapes that broadcast."""
    shape = jnp.broadcast_shapes(*(word.shape for word in words))
    return threefry2x32_p.bind(
        *(jnp.broadcast_to(word.astype(jnp.uint32), shape) for word in words)
    )
