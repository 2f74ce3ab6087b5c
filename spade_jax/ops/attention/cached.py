"""Causal attention of the next tokens to themselves and those before, whose keys are kept."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from spade_jax.ops.attention.chunk_numbers import ChunkPlace, first_place, number_chunks
from spade_jax.ops.attention.softmax import (
    probabilities_of,
    scores_of,
    visible_keys,
    weighted,
)
from spade_jax.ops.attention.window import window_attention


class AttentionCache(NamedTuple):
    """A ring of slots, of which token i has slot i % slots: full attention needs as many as there
    will be tokens, window attention only its radius + 1, and chunk attention a chunk's size.

    Keys come before the heads' size and after the heads, as the matmuls read them.
    """

    key_bhjk: Array
    value_bhjk: Array
    # int32; 0 where there is padding, or no token yet. Of chunk attention the chunks' numbers.
    segment_ids_bj: Array
    place: ChunkPlace | None  # of chunk attention


def empty_cache(
    rows: int,
    heads: int,
    slots: int,
    head_dim: int,
    dtype: jax.typing.DTypeLike,
    value_dim: int | None = None,
    chunks: bool = False,
) -> AttentionCache:
    """The cache of `rows` sequences before their first token; values are as wide as keys, or of
    `value_dim`. chunks: it is for chunk attention."""
    keys, values = (
        jnp.zeros((rows, heads, slots, width), dtype) for width in (head_dim, value_dim or head_dim)
    )
    place = first_place(rows) if chunks else None
    return AttentionCache(keys, values, jnp.zeros((rows, slots), jnp.int32), place)


def cached_attention(
    query_blhk: Array,
    key_blhk: Array,
    value_blhk: Array,
    cache: AttentionCache,
    index: Array,
    *,
    radius: int | None = None,
    chunk_size: int | None = None,
    segment_ids_bl: Array,
    bias: Array | None,
    weights: str = "softmax",
    implementation: str | None = None,
) -> tuple[Array, AttentionCache]:
    """What causal attention gives for tokens `index`, `index` + 1, …, and the cache with them.

    Several tokens at a time are a piece of a prompt. Full attention holds the scores of such a
    piece and all that came before in memory: read long prompts in pieces.

    Args:
      query_blhk: [b, l, h, k], already scaled; key_blhk, value_blhk likewise.
      cache: of the tokens before.
      index: int32 scalar, how many those are.
      radius: of window attention.
      chunk_size: of chunk attention. With neither it is full attention, for which index + l must be
        at most the cache's slots.
      segment_ids_bl: int [b, l]; 0 is padding, which sees nothing and is never seen.
      bias: float32 [h, 2 * reach + 1], as of `window_attention` (where reach is the radius),
        `chunk_attention` (one less than the size) and `full_attention`.
      weights: likewise.
      implementation: of window attention, which pieces of a prompt go through.

    Returns:
      [b, l, h, k], zero at padding; the new cache.
    """
    if chunk_size is not None:
        # Chunks are segments that fit into a window.
        segment_ids_bl, _, place = number_chunks(segment_ids_bl, chunk_size, cache.place)
        cache, radius = cache._replace(place=place), chunk_size - 1
    if query_blhk.shape[1] > 1 and radius is not None:
        return _window_piece(
            query_blhk,
            key_blhk,
            value_blhk,
            cache,
            index,
            radius=radius,
            segment_ids_bl=segment_ids_bl,
            bias=bias,
            weights=weights,
            implementation=implementation,
        )
    length, slots = query_blhk.shape[1], cache.key_bhjk.shape[2]
    slot = index % slots

    query, key, value = (x.swapaxes(1, 2) for x in (query_blhk, key_blhk, value_blhk))

    def put(ring: Array, new: Array, axis: int) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(ring, new.astype(ring.dtype), slot, axis)

    segment_ids_bj = put(cache.segment_ids_bj, segment_ids_bl, 1)
    positions = index + jnp.arange(length, dtype=jnp.int32)
    places_back_lj = (positions[:, None] - jnp.arange(slots, dtype=jnp.int32)[None]) % slots
    visible = visible_keys(segment_ids_bl, segment_ids_bj)
    assert visible is not None
    if length > 1:
        # Of a ring that has not gone round, what is further back than there are tokens is ahead.
        visible = visible & (places_back_lj <= positions[:, None])[None, None]
    # The new tokens' scores and values join those of the ring, which is read as it was and written
    # afterwards: in place, where XLA would copy it for each token else.
    probabilities, _ = probabilities_of(
        put(scores_of(query, cache.key_bhjk), scores_of(query, key), 3),
        visible=visible,
        bias=None if bias is None else _behind(bias, places_back_lj)[None],
        weights=weights,
    )
    own = jax.lax.dynamic_slice_in_dim(probabilities, slot, length, 3)
    past = put(probabilities, jnp.zeros_like(own), 3)
    attended = weighted(past, cache.value_bhjk) + weighted(
        own, value.astype(cache.value_bhjk.dtype)
    )
    # Nothing but what makes the order plain to XLA.
    afterwards = 0 * attended[..., :1]
    cache = AttentionCache(
        put(cache.key_bhjk, key + afterwards, 2),
        put(cache.value_bhjk, value + afterwards, 2),
        segment_ids_bj,
        cache.place,
    )
    return attended.astype(query.dtype).swapaxes(1, 2), cache


def _behind(bias: Array, places_back_lj: Array) -> Array:
    """Of the biases [h, 2 * reach + 1] those of keys so many places before the query, [h, l, j]."""
    reach = bias.shape[1] // 2
    return bias[:, reach - jnp.minimum(places_back_lj, reach)]


def _window_piece(
    query_blhk: Array,
    key_blhk: Array,
    value_blhk: Array,
    cache: AttentionCache,
    index: Array,
    *,
    radius: int,
    segment_ids_bl: Array,
    bias: Array | None,
    weights: str,
    implementation: str | None,
) -> tuple[Array, AttentionCache]:
    """Window attention over the slots, in the order of their tokens, and the piece behind them."""
    slots = cache.key_bhjk.shape[2]

    def before(ring: Array, new: Array, axis: int) -> Array:
        """The ring's tokens and the new ones."""
        past = jnp.roll(ring, -(index % slots), axis)
        return jnp.concatenate([past, new.astype(ring.dtype)], axis)

    keys = before(cache.key_bhjk, key_blhk.swapaxes(1, 2), 2)
    values = before(cache.value_bhjk, value_blhk.swapaxes(1, 2), 2)
    segment_ids = before(cache.segment_ids_bj, segment_ids_bl.astype(jnp.int32), 1)
    attended = window_attention(
        jnp.pad(query_blhk, ((0, 0), (slots, 0), (0, 0), (0, 0))),
        keys.swapaxes(1, 2),
        values.swapaxes(1, 2),
        radius=radius,
        causal=True,
        segment_ids=segment_ids,
        bias=bias,
        weights=weights,
        implementation=implementation,
    )
    following = (index + query_blhk.shape[1]) % slots

    def after(extended: Array, axis: int) -> Array:
        """The ring of the last tokens."""
        last = jax.lax.slice_in_dim(extended, extended.shape[axis] - slots, None, axis=axis)
        return jnp.roll(last, following, axis)

    cache = AttentionCache(after(keys, 2), after(values, 2), after(segment_ids, 1), cache.place)
    return attended[:, slots:], cache
