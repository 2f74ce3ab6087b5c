"""Sliding-window attention in plain JAX: blocks of queries and the blocks of keys around them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from spade_jax.ops.attention import full_xla
from spade_jax.ops.attention.dropout import keeps
from spade_jax.ops.attention.shards import DropoutWords, window_over_shards
from spade_jax.ops.attention.softmax import named, softmax_attention
from spade_jax.ops.toeplitz import toeplitz

# Queries per sequence whose scores are in memory at one time: enough to keep an accelerator busy,
# few enough for the scores to weigh little beside the activations of a long sequence.
_SPAN = 1024


def attend(
    query_blhk: Array,
    key_blhk: Array,
    value_blhk: Array,
    segment_ids: Array | None,
    bias: Array | None,
    dropout_key: Array | None,
    *,
    radius: int,
    causal: bool,
    dropout_rate: float,
    **weights: str,
) -> Array:
    """`window.window_attention`: each block of queries attends to its own block of keys and to the
    neighbouring ones, a span of blocks at a time."""
    block, length = radius + 1, query_blhk.shape[1]
    if length <= block:  # All are within reach of each other.
        return full_xla.attend(
            query_blhk,
            key_blhk,
            value_blhk,
            segment_ids,
            segment_ids,
            None if bias is None else bias[:, block - length : radius + length],
            dropout_key,
            causal=causal,
            dropout_rate=dropout_rate,
            **weights,
        )
    return window_over_shards(
        _in_spans,
        query_blhk,
        key_blhk,
        value_blhk,
        segment_ids,
        bias,
        dropout_key,
        radius=radius,
        causal=causal,
        dropout_rate=dropout_rate,
        **weights,
    )


def _in_spans(
    query_blhk: Array,
    key_bjhk: Array,
    value_bjhk: Array,
    segment_ids: Array | None,
    key_segment_ids: Array | None,
    bias: Array | None,
    words: DropoutWords | None,
    *,
    radius: int,
    causal: bool,
    dropout_rate: float,
    before: int,
    weights: str = "softmax",
) -> Array:
    """What attends on one device, as `window_over_shards` asks for it."""
    if segment_ids is None or key_segment_ids is None:
        segment_ids = key_segment_ids = jnp.ones(query_blhk.shape[:2], jnp.int32)
    relative = _relative_positions(radius, causal)
    block, keys = relative.shape
    length = query_blhk.shape[1]
    blocks = -(-length // block)
    # A span, unless it is the only one, must be as long as what its last block reads beyond it.
    spans = -(-blocks // max(2, _SPAN // block))
    span = -(-blocks // spans) * block

    def of_queries(array_bhlk: Array) -> Array:
        return _spans(_filled_up(array_bhlk, spans * span), spans, span)

    def of_keys(array_bhjk: Array) -> Array:
        return _with_neighbours(array_bhjk, spans, span, block, before=before, causal=causal)

    in_window = (np.abs(relative) <= radius) & (not causal or relative <= 0)
    if bias is not None:
        bias = _bias_of_block(bias, block, causal)

    def attend(arrays: tuple[Any, ...]) -> Array:
        """One span of queries, [b, h, span, k], to the keys around it."""
        query, key, value, query_segments, key_segments, words = arrays
        query_segments = _blocks(query_segments, block, block)[..., :, None]
        key_segments = _blocks(key_segments, block, keys)[..., None, :]
        visible = (query_segments == key_segments) & (key_segments != 0)
        keep = None
        if words is not None:
            query_words = _blocks(words.query_bhq, block, block)[..., :, None]
            keep = keeps(query_words, _blocks(words.key_j, block, keys)[..., None, :], dropout_rate)
        attended_bhnqk, _ = softmax_attention(
            _blocks(query, block, block),
            _blocks(key, block, keys),
            _blocks(value, block, keys),
            visible=visible & in_window[None, None, None],
            bias=bias,
            weights=weights,
            dropout_rate=dropout_rate,
            kept=keep,
        )
        return lax.collapse(attended_bhnqk, 2, 4)

    if words is not None:
        words = DropoutWords(of_queries(words.query_bhq), of_keys(words.key_j[None, None]))
    # The backward pass computes the probabilities again instead of keeping them.
    attended_sbhlk = lax.map(
        jax.checkpoint(attend, prevent_cse=False),
        (
            of_queries(query_blhk.swapaxes(1, 2)),
            of_keys(key_bjhk.swapaxes(1, 2)),
            of_keys(value_bjhk.swapaxes(1, 2)),
            of_queries(segment_ids[:, None]),
            of_keys(key_segment_ids[:, None]),
            words,
        ),
    )
    attended_bhlk = lax.collapse(jnp.moveaxis(attended_sbhlk, 0, 2), 2, 4)[:, :, :length]
    return named(attended_bhlk.swapaxes(1, 2))


def _relative_positions(radius: int, causal: bool) -> np.ndarray:
    """Key - query position, of one block of queries and the blocks of keys that it reads.

    A block is `radius` + 1 long, so that a window reaches into its neighbours and no further:
    keys are those of the previous block and its own, and of the next one unless `causal`.

    Returns:
      int64 [block, keys].
    """
    block = radius + 1
    keys = np.arange(-block, block if causal else 2 * block)
    return keys[None, :] - np.arange(block)[:, None]


def _bias_of_block(bias: Array, block: int, causal: bool) -> Array:
    """[h, 2 * radius + 1] to [1, h, 1, block, keys]; what is beyond the radius is hidden."""
    beyond = (block, 0 if causal else block)
    return toeplitz(jnp.pad(bias, ((0, 0), beyond)), block)[None, :, None]


def _with_neighbours(
    array_bhjk: Array, spans: int, span: int, block: int, *, before: int, causal: bool
) -> Array:
    """[b, h, j, ...] to [spans, b, h, span and the blocks beside it, ...], those behind it only if
    not `causal`; where there are not already `before` entries of the block before, zeros."""
    padding = [(0, 0)] * array_bhjk.ndim
    padding[2] = (block - before, 0)
    extended = jnp.pad(array_bhjk, padding)
    beyond = block if causal else 2 * block
    extended = _filled_up(extended, spans * span + beyond)
    rest = extended[None, :, :, spans * span :]
    within = _spans(extended[:, :, : spans * span], spans, span)
    following = rest
    if spans > 1:
        following = jnp.concatenate([within[1:, :, :, :beyond], rest])
    return jnp.concatenate([within, following], axis=3)


def _filled_up(array: Array, length: int) -> Array:
    """[b, h, l, ...] with zeros behind up to a length."""
    padding = [(0, 0)] * array.ndim
    padding[2] = (0, length - array.shape[2])
    return jnp.pad(array, padding)


def _spans(array: Array, spans: int, span: int) -> Array:
    """[b, h, spans * span, ...] to [spans, b, h, span, ...]."""
    return jnp.moveaxis(array.reshape(*array.shape[:2], spans, span, *array.shape[3:]), 2, 0)


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
