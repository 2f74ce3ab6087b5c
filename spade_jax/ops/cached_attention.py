"""Attention of one new token to itself and those before it, whose keys and values are kept."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from spade_jax.ops.full_attention import visible_keys
from spade_jax.ops.softmax_attention import softmax_attention


class AttentionCache(NamedTuple):
    """A ring of slots, of which token i has slot i % slots: full attention needs as many as there
    will be tokens, causal window attention only its radius + 1.

    Keys come before the heads' size and after the heads, as the matmuls read them.
    """

    key_bhjk: Array
    value_bhjk: Array
    segment_ids_bj: Array  # int32; 0 where there is padding, or no token yet


def empty_cache(rows: int, heads: int, slots: int, head_dim: int, dtype: jax.typing.DTypeLike):
    """The cache of `rows` sequences before their first token."""
    empty = jnp.zeros((rows, heads, slots, head_dim), dtype)
    return AttentionCache(empty, empty, jnp.zeros((rows, slots), jnp.int32))


def cached_attention(
    query_b1hk: Array,
    key_b1hk: Array,
    value_b1hk: Array,
    cache: AttentionCache,
    index: Array,
    *,
    segment_ids_b1: Array,
    bias_hj: Array | None,
) -> tuple[Array, AttentionCache]:
    """What causal full or window attention gives for token `index`, and the cache with that token.

    Args:
      query_b1hk: [b, 1, h, k], already scaled; key_b1hk, value_b1hk likewise.
      cache: of the tokens before it.
      index: int32 scalar, how many those are.
      segment_ids_b1: int [b, 1]; 0 is padding, which sees nothing and is never seen.
      bias_hj: float32 [h, slots], added to the score of the token j places back.

    Returns:
      [b, 1, h, k], zero at padding; the new cache.
    """
    slots = cache.key_bhjk.shape[2]
    slot = index % slots

    def put(ring: Array, token: Array, axis: int) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(ring, token.astype(ring.dtype), slot, axis)

    cache = AttentionCache(
        put(cache.key_bhjk, key_b1hk.swapaxes(1, 2), 2),
        put(cache.value_bhjk, value_b1hk.swapaxes(1, 2), 2),
        put(cache.segment_ids_bj, segment_ids_b1, 1),
    )
    places_back = (index - jnp.arange(slots, dtype=jnp.int32)) % slots
    attended_bh1k, _ = softmax_attention(
        query_b1hk.swapaxes(1, 2),
        cache.key_bhjk,
        cache.value_bhjk,
        visible=visible_keys(segment_ids_b1, cache.segment_ids_bj),
        bias=None if bias_hj is None else bias_hj[None, :, None, places_back],
    )
    return attended_bh1k.swapaxes(1, 2), cache
