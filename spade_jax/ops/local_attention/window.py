"""Sliding-window attention in blocks: time and memory linear in the length."""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from spade_jax.config import require
from spade_jax.ops.full_attention import full_attention
from spade_jax.ops.softmax_attention import softmax_attention


def window_relative_positions(radius: int, causal: bool) -> np.ndarray:
    """Key - query position, of one block of queries and the blocks of keys that it reads.

    A block is `radius` + 1 long, so that a window reaches into its neighbours and no further:
    keys are those of the previous block and its own, and of the next one unless `causal`.

    Returns:
      int64 [block, keys]; the same for each block, so that biases are made once.

    Raises:
      ConfigError: a radius below 1.
    """
    require(radius >= 1, "radius", radius, "must be at least 1")
    block = radius + 1
    keys = np.arange(-block, block if causal else 2 * block)
    return keys[None, :] - np.arange(block)[:, None]


def window_attention(
    query_blhk: Array,
    key_blhk: Array,
    value_blhk: Array,
    *,
    radius: int,
    causal: bool,
    segment_ids: Array | None = None,
    bias: Array | None = None,
    dropout_rate: float = 0.0,
    dropout_key: Array | None = None,
) -> Array:
    """Softmax attention of each position to those within `radius` of it.

    Position i sees j where |i - j| <= radius (and j <= i if `causal`) and both are of one
    segment. It is attention of each block of queries to its own block of keys and the
    neighbouring ones: never an array of l x l.

    Args:
      query_blhk: [b, l, h, k], already scaled; any length.
      key_blhk, value_blhk: [b, l, h, k].
      radius: how many positions to either side are seen, at least 1.
      causal: see none to the right.
      segment_ids: int [b, l], in any order; 0 is padding, which sees nothing and is never seen.
        None: all of one segment.
      bias: float32 [h, block, keys], added to the scores; see `window_relative_positions`.
      dropout_rate: which share of the probabilities to drop.
      dropout_key: needed where the rate is not zero.

    Returns:
      [b, l, h, k] in the dtype of the queries; zero at padding.

    Raises:
      ConfigError: a radius below 1, a bias of another shape, a dropout rate outside [0, 1) or
        without a key.
    """
    relative = window_relative_positions(radius, causal)
    block, keys = relative.shape
    _, length, heads, _ = query_blhk.shape
    require(
        bias is None or bias.shape == (heads, block, keys),
        "bias.shape",
        None if bias is None else bias.shape,
        f"must be [h, block, keys] = {(heads, block, keys)} for radius = {radius}",
    )
    if length <= block:  # All are within reach of each other.
        own = slice(block, block + length)
        return full_attention(
            query_blhk,
            key_blhk,
            value_blhk,
            causal=causal,
            query_segment_ids=segment_ids,
            key_segment_ids=segment_ids,
            bias=None if bias is None else bias[:, :length, own],
            dropout_rate=dropout_rate,
            dropout_key=dropout_key,
        )
    if segment_ids is None:
        segment_ids = jnp.ones((1, length), jnp.int32)
    segments_b1nq = _blocks(segment_ids[:, None, :], block)
    in_window = (np.abs(relative) <= radius) & (not causal or relative <= 0)
    key_segments = _with_neighbours(segments_b1nq, causal)[:, :, :, None, :]
    visible = (
        (segments_b1nq[..., None] == key_segments)
        & (key_segments != 0)
        & in_window[None, None, None]
    )

    attended_bhnqk = softmax_attention(
        _blocks(query_blhk.swapaxes(1, 2), block),
        _with_neighbours(_blocks(key_blhk.swapaxes(1, 2), block), causal),
        _with_neighbours(_blocks(value_blhk.swapaxes(1, 2), block), causal),
        visible=visible,
        bias=None if bias is None else bias[None, :, None],
        dropout_rate=dropout_rate,
        dropout_key=dropout_key,
    )
    attended_bhlk = lax.collapse(attended_bhnqk, 2, 4)[:, :, :length]
    return attended_bhlk.swapaxes(1, 2)


def _blocks(array: Array, block: int) -> Array:
    """[b, h, l, ...] to [b, h, n, block, ...], the last block filled up with zeros."""
    count = -(-array.shape[2] // block)
    padding = [(0, 0)] * array.ndim
    padding[2] = (0, count * block - array.shape[2])
    return jnp.pad(array, padding).reshape(*array.shape[:2], count, block, *array.shape[3:])


def _with_neighbours(blocks: Array, causal: bool) -> Array:
    """[b, h, n, block, ...] to [b, h, n, keys, ...], with zeros beyond the ends."""
    count = blocks.shape[2]
    padding = [(0, 0)] * blocks.ndim
    padding[2] = (1, 0 if causal else 1)
    padded = jnp.pad(blocks, padding)
    shifted = [lax.slice_in_dim(padded, i, i + count, axis=2) for i in range(2 if causal else 3)]
    return jnp.concatenate(shifted, axis=3)
