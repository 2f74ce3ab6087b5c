"""Sliding-window attention in blocks: time and memory linear in the length."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from spade_jax.config import require
from spade_jax.ops.full_attention import full_attention
from spade_jax.ops.softmax_attention import softmax_attention

# Queries per sequence whose scores are in memory at one time: enough to keep an accelerator busy,
# few enough for the scores to weigh little beside the activations of a long sequence.
_SPAN = 1024


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
    segment. Each block of queries attends to its own block of keys and to the neighbouring ones,
    a span of blocks at a time: there is never an array of l x l.

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
        return full_attention(
            query_blhk,
            key_blhk,
            value_blhk,
            causal=causal,
            query_segment_ids=segment_ids,
            key_segment_ids=segment_ids,
            bias=None if bias is None else bias[:, :length, block : block + length],
            dropout_rate=dropout_rate,
            dropout_key=dropout_key,
        )
    if segment_ids is None:
        segment_ids = jnp.ones((1, length), jnp.int32)
    blocks = -(-length // block)
    spans = -(-blocks // max(1, _SPAN // block))
    span = -(-blocks // spans) * block
    query_sbhlk, key_sbhlk, value_sbhlk = (
        _spans(array.swapaxes(1, 2), spans, span) for array in (query_blhk, key_blhk, value_blhk)
    )
    segments_sb1l = _spans(segment_ids[:, None, :], spans, span)
    in_window = (np.abs(relative) <= radius) & (not causal or relative <= 0)

    def attend(arrays: tuple[Array, Array, Array, Array, Array, Array | None]) -> Array:
        """One span of queries, [b, h, span, k], to the keys around it."""
        query, key, value, query_segments, key_segments, dropout_key = arrays
        query_segments = _blocks(query_segments, block, block)[..., :, None]
        key_segments = _blocks(key_segments, block, keys)[..., None, :]
        visible = (query_segments == key_segments) & (key_segments != 0)
        attended_bhnqk = softmax_attention(
            _blocks(query, block, block),
            _blocks(key, block, keys),
            _blocks(value, block, keys),
            visible=visible & in_window[None, None, None],
            bias=None if bias is None else bias[None, :, None],
            dropout_rate=dropout_rate,
            dropout_key=dropout_key,
        )
        return lax.collapse(attended_bhnqk, 2, 4)

    # The backward pass computes the probabilities again instead of keeping them.
    attended_sbhlk = lax.map(
        jax.checkpoint(attend, prevent_cse=False),
        (
            query_sbhlk,
            _with_neighbours(key_sbhlk, block, causal),
            _with_neighbours(value_sbhlk, block, causal),
            segments_sb1l,
            _with_neighbours(segments_sb1l, block, causal),
            None if dropout_key is None else jax.random.split(dropout_key, spans),
        ),
    )
    attended_bhlk = lax.collapse(jnp.moveaxis(attended_sbhlk, 0, 2), 2, 4)[:, :, :length]
    return attended_bhlk.swapaxes(1, 2)


def _spans(array: Array, spans: int, span: int) -> Array:
    """[b, h, l, ...] to [spans, b, h, span, ...], filled up with zeros."""
    padding = [(0, 0)] * array.ndim
    padding[2] = (0, spans * span - array.shape[2])
    padded = jnp.pad(array, padding)
    return jnp.moveaxis(padded.reshape(*array.shape[:2], spans, span, *array.shape[3:]), 2, 0)


def _with_neighbours(spans: Array, block: int, causal: bool) -> Array:
    """Puts the block before each span in front of it, and unless `causal` the one after behind."""
    nothing = jnp.zeros_like(spans[:1, :, :, :block])
    before = jnp.concatenate([nothing, spans[:-1, :, :, -block:]])
    after = jnp.concatenate([spans[1:, :, :, :block], nothing])
    return jnp.concatenate([before, spans] + ([] if causal else [after]), axis=3)


def _blocks(array: Array, block: int, width: int) -> Array:
    """[b, h, l, ...] to [b, h, n, width, ...]: the `width` entries from each block's start on."""
    count = (array.shape[2] - width) // block + 1
    shifted = [
        lax.slice_in_dim(array, start, start + count * block, axis=2).reshape(
            *array.shape[:2], count, block, *array.shape[3:]
        )
        for start in range(0, width, block)
    ]
    return jnp.concatenate(shifted, axis=3)
