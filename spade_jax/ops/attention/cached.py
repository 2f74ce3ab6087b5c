"""Causal attention of the next tokens to themselves and those before, whose keys are kept."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from spade_jax.ops.attention.softmax import softmax_attention, visible_keys
from spade_jax.ops.attention.window import window_attention


class AttentionCache(NamedTuple):
    """A ring of slots, of which token i has slot i % slots: full attention needs as many as there
    will be tokens, window attention only its radius + 1.

    Keys come before the heads' size and after the heads, as the matmuls read them.
    """

    key_bhjk: Array
    value_bhjk: Array
    segment_ids_bj: Array  # int32; 0 where there is padding, or no token yet


def empty_cache(
    rows: int, heads: int, slots: int, head_dim: int, dtype: jax.typing.DTypeLike
) -> AttentionCache:
    """The cache of `rows` sequences before their first token."""
    empty = jnp.zeros((rows, heads, slots, head_dim), dtype)
    return AttentionCache(empty, empty, jnp.zeros((rows, slots), jnp.int32))


def cached_attention(
    query_blhk: Array,
    key_blhk: Array,
    value_blhk: Array,
    cache: AttentionCache,
    index: Array,
    *,
    radius: int | None,
    segment_ids_bl: Array,
    bias: Array | None,
    implementation: str | None = None,
) -> tuple[Array, AttentionCache]:
    """What causal attention gives for tokens `index`, `index` + 1, …, and the cache with them.

    Several tokens at a time are a piece of a prompt. Full attention holds the scores of such a
    piece and all that came before in memory: read long prompts in pieces.

    Args:
      query_blhk: [b, l, h, k], already scaled; key_blhk, value_blhk likewise.
      cache: of the tokens before.
      index: int32 scalar, how many those are.
      radius: of window attention; None is full attention, for which index + l must be at most the
        cache's slots.
      segment_ids_bl: int [b, l]; 0 is padding, which sees nothing and is never seen.
      bias: float32 [h, 2 * reach + 1], as of `window_attention` (where reach is the radius) and
        `full_attention`.
      implementation: of window attention, which pieces of a prompt go through.

    Returns:
      [b, l, h, k], zero at padding; the new cache.
    """
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
            implementation=implementation,
        )
    length, slots = query_blhk.shape[1], cache.key_bhjk.shape[2]
    query, key, value = (x.swapaxes(1, 2) for x in (query_blhk, key_blhk, value_blhk))
    positions = index + jnp.arange(length, dtype=jnp.int32)
    slot = index % slots

    def attend(keys: Array, values: Array, segment_ids: Array, back_lj: Array, shown: Array):
        visible = visible_keys(segment_ids_bl, segment_ids)
        assert visible is not None
        return softmax_attention(
            query,
            keys,
            values,
            visible=visible & shown,
            bias=None if bias is None else _behind(bias, back_lj)[None],
        )

    # Slots that these tokens take have what none of them sees.
    every = jnp.arange(slots, dtype=jnp.int32)
    past, past_log_sum = attend(
        *cache, (positions[:, None] - every) % slots, (every - slot) % slots >= length
    )
    back_lj = positions[:, None] - positions
    own, own_log_sum = attend(key, value, segment_ids_bl, back_lj, back_lj >= 0)
    share = jax.nn.sigmoid(past_log_sum - own_log_sum)[..., None]
    attended = (share * past + (1 - share) * own).astype(query.dtype)

    def put(ring: Array, new: Array, axis: int) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(ring, new.astype(ring.dtype), slot, axis)

    # After what was read of the ring, and therefore in place: XLA would copy it else.
    after = 0 * attended
    cache = AttentionCache(
        put(cache.key_bhjk, key + after, 2),
        put(cache.value_bhjk, value + after, 2),
        put(cache.segment_ids_bj, segment_ids_bl, 1),
    )
    return attended.swapaxes(1, 2), cache


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
        implementation=implementation,
    )
    following = (index + query_blhk.shape[1]) % slots

    def after(extended: Array, axis: int) -> Array:
        """The ring of the last tokens."""
        last = jax.lax.slice_in_dim(extended, extended.shape[axis] - slots, None, axis=axis)
        return jnp.roll(last, following, axis)

    cache = AttentionCache(after(keys, 2), after(values, 2), after(segment_ids, 1))
    return attended[:, slots:], cache
