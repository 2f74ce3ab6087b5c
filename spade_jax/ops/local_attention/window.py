"""Sliding-window attention in blocks: time and memory linear in the length."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from spade_jax import partition
from spade_jax.config import require
from spade_jax.ops.dropout import check_dropout, kept, number_queries
from spade_jax.ops.full_attention import full_attention
from spade_jax.ops.softmax_attention import softmax_attention
from spade_jax.ops.toeplitz import toeplitz

# Queries per sequence whose scores are in memory at one time: enough to keep an accelerator busy,
# few enough for the scores to weigh little beside the activations of a long sequence.
_SPAN = 1024


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

    Where the ambient mesh cuts sequences into shards of at least a block, each fetches a block of
    keys and values from its neighbours and nothing else.

    Args:
      query_blhk: [b, l, h, k], already scaled; any length.
      key_blhk, value_blhk: [b, l, h, k].
      radius: how many positions to either side are seen, at least 1.
      causal: see none to the right.
      segment_ids: int [b, l], in any order; 0 is padding, which sees nothing and is never seen.
        None: all of one segment.
      bias: float32 [h, 2 * radius + 1], added to the scores: of keys `radius` places before the
        query to `radius` behind it.
      dropout_rate: which share of the probabilities to drop.
      dropout_key: needed where the rate is not zero.

    Returns:
      [b, l, h, k] in the dtype of the queries; zero at padding.

    Raises:
      ConfigError: a radius below 1, a bias of another shape, a dropout rate outside [0, 1) or
        without a key.
    """
    require(radius >= 1, "radius", radius, "must be at least 1")
    block = radius + 1
    rows, length, heads, _ = query_blhk.shape
    require(
        bias is None or bias.shape == (heads, 2 * radius + 1),
        "bias.shape",
        None if bias is None else bias.shape,
        f"must be [h, 2 * radius + 1] = {(heads, 2 * radius + 1)} for radius = {radius}",
    )
    check_dropout(dropout_rate, dropout_key)
    if length <= block:  # All are within reach of each other.
        return full_attention(
            query_blhk,
            key_blhk,
            value_blhk,
            causal=causal,
            query_segment_ids=segment_ids,
            key_segment_ids=segment_ids,
            bias=None if bias is None else bias[:, block - length : radius + length],
            dropout_rate=dropout_rate,
            dropout_key=dropout_key,
        )
    if segment_ids is None:
        segment_ids = jnp.ones((rows, length), jnp.int32)
    axes = partition.fitting(("batch", "length", "heads", None), query_blhk.shape)
    if length < partition.sequence_shards() * block:
        axes = (axes[0], None, *axes[2:])
    on_shard = functools.partial(
        _attend_on_shard,
        radius=radius,
        causal=causal,
        dropout_rate=dropout_rate,
        num_heads=heads,
        whole=length,
        axes=axes,
    )
    attend = partition.on_each_device(on_shard, (axes, axes, axes, axes[:2], (axes[2],), ()), axes)
    return attend(
        query_blhk,
        key_blhk,
        value_blhk,
        segment_ids,
        bias,
        dropout_key if dropout_rate > 0 else None,
    )


def _attend_on_shard(
    query_blhk: Array,
    key_blhk: Array,
    value_blhk: Array,
    segment_ids: Array,
    bias: Array | None,
    dropout_key: Array | None,
    *,
    radius: int,
    causal: bool,
    dropout_rate: float,
    num_heads: int,
    whole: int,
    axes: tuple[str | None, ...],
) -> Array:
    """`window_attention`, of one shard of so many heads and of the whole length; the axes are those
    that are cut into shards."""
    relative = _relative_positions(radius, causal)
    block, keys = relative.shape
    length = query_blhk.shape[1]
    blocks = -(-length // block)
    # A span, unless it is the only one, must be as long as what its last block reads beyond it.
    spans = -(-blocks // max(2, _SPAN // block))
    span = -(-blocks // spans) * block

    def neighbour(block_bhlk: Array, distance: int) -> Array:
        """The block before the first one, or after the last, from that of the shard before."""
        if axes[1] is None:
            return jnp.zeros_like(block_bhlk)
        return partition.from_shard_before(block_bhlk, distance)

    def around(array_bhlk: Array) -> Array:
        """[b, h, l, ...] to [spans, b, h, span and its neighbours, ...]."""
        near = [neighbour(array_bhlk[:, :, -block:], 1), array_bhlk]
        if not causal:
            near.append(neighbour(array_bhlk[:, :, :block], -1))
        beyond = keys - block
        extended = jnp.concatenate(near, axis=2)
        extended = _filled_up(extended, spans * span + beyond)
        rest = extended[None, :, :, spans * span :]
        within = _spans(extended[:, :, : spans * span], spans, span)
        following = rest
        if spans > 1:
            following = jnp.concatenate([within[1:, :, :, :beyond], rest])
        return jnp.concatenate([within, following], axis=3)

    key_bhlk, value_bhlk = key_blhk.swapaxes(1, 2), value_blhk.swapaxes(1, 2)
    query_sbhlk = _spans(_filled_up(query_blhk.swapaxes(1, 2), spans * span), spans, span)
    segments_sb1l = _spans(_filled_up(segment_ids[:, None, :], spans * span), spans, span)
    in_window = (np.abs(relative) <= radius) & (not causal or relative <= 0)
    if bias is not None:
        # Of each block; what is beyond the radius is hidden.
        beyond = (block, 0 if causal else block)
        bias = toeplitz(jnp.pad(bias, ((0, 0), beyond)), block)[None, :, None]
    rows = partition.places(axes[0], query_blhk.shape[0])
    heads = partition.places(axes[2], query_blhk.shape[2])
    first = partition.places(axes[1], length)[0]

    def attend(arrays: tuple[Array, Array, Array, Array, Array, Array]) -> Array:
        """One span of queries, [b, h, span, k], to the keys around it."""
        query, key, value, query_segments, key_segments, first = arrays
        query_segments = _blocks(query_segments, block, block)[..., :, None]
        key_segments = _blocks(key_segments, block, keys)[..., None, :]
        visible = (query_segments == key_segments) & (key_segments != 0)
        keep = None
        if dropout_key is not None:
            positions = first + jnp.arange(span, dtype=jnp.int32)
            numbers_bhl = number_queries(rows, heads, positions, num_heads=num_heads, length=whole)
            keep = kept(
                dropout_key,
                dropout_rate,
                queries=numbers_bhl.reshape(*numbers_bhl.shape[:2], -1, block, 1),
                keys=positions.reshape(-1, block, 1) + relative[None].astype(np.int32),
            )
        attended_bhnqk, _ = softmax_attention(
            _blocks(query, block, block),
            _blocks(key, block, keys),
            _blocks(value, block, keys),
            visible=visible & in_window[None, None, None],
            bias=bias,
            dropout_rate=dropout_rate,
            kept=keep,
        )
        return lax.collapse(attended_bhnqk, 2, 4)

    # The backward pass computes the probabilities again instead of keeping them.
    attended_sbhlk = lax.map(
        jax.checkpoint(attend, prevent_cse=False),
        (
            query_sbhlk,
            around(key_bhlk),
            around(value_bhlk),
            segments_sb1l,
            around(segment_ids[:, None, :]),
            first + span * jnp.arange(spans, dtype=jnp.int32),
        ),
    )
    attended_bhlk = lax.collapse(jnp.moveaxis(attended_sbhlk, 0, 2), 2, 4)[:, :, :length]
    return attended_bhlk.swapaxes(1, 2)


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
