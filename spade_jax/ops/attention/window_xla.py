"""Sliding-window attention in plain JAX: blocks of queries and the blocks of keys around them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name

from spade_jax import partition
from spade_jax.ops.attention import full_xla
from spade_jax.ops.attention.dropout import kept, number_queries
from spade_jax.ops.attention.softmax import ATTENDED, softmax_attention
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
) -> Array:
    """`window.window_attention`: each block of queries attends to its own block of keys and to the
    neighbouring ones, a span of blocks at a time.

    Where the ambient mesh cuts sequences into shards of at least a block, each fetches a block of
    keys and values from its neighbours and nothing else.
    """
    block = radius + 1
    rows, length, heads, _ = query_blhk.shape
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
        )
    if segment_ids is None:
        segment_ids = jnp.ones((rows, length), jnp.int32)
    axes = partition.sharded_axes(("batch", "length", "heads", None), query_blhk.shape)
    if length < partition.sequence_shards() * block:
        axes = (axes[0], None, *axes[2:])
    on_shard = functools.partial(
        _attend_on_shard,
        radius=radius,
        causal=causal,
        dropout_rate=dropout_rate,
        num_heads=heads,
        sequence_length=length,
        axes=axes,
    )
    on_devices = partition.on_each_device(
        on_shard, (axes, axes, axes, axes[:2], (axes[2],), ()), axes
    )
    attended = on_devices(query_blhk, key_blhk, value_blhk, segment_ids, bias, dropout_key)
    return checkpoint_name(attended, ATTENDED)


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
    sequence_length: int,
    axes: tuple[str | None, ...],
) -> Array:
    """`attend`, of one shard of so many heads and of a sequence of this length; the axes are those
    that are cut into shards."""
    relative = _relative_positions(radius, causal)
    block, keys = relative.shape
    length = query_blhk.shape[1]
    blocks = -(-length // block)
    # A span, unless it is the only one, must be as long as what its last block reads beyond it.
    spans = -(-blocks // max(2, _SPAN // block))
    span = -(-blocks // spans) * block

    def with_neighbours(array_bhlk: Array) -> Array:
        return _with_neighbours(
            array_bhlk, spans, span, block, causal=causal, sharded=axes[1] is not None
        )

    key_bhlk, value_bhlk = key_blhk.swapaxes(1, 2), value_blhk.swapaxes(1, 2)
    query_sbhlk = _spans(_filled_up(query_blhk.swapaxes(1, 2), spans * span), spans, span)
    segments_sb1l = _spans(_filled_up(segment_ids[:, None, :], spans * span), spans, span)
    in_window = (np.abs(relative) <= radius) & (not causal or relative <= 0)
    if bias is not None:
        bias = _bias_of_block(bias, block, causal)
    rows = partition.global_indices(axes[0], query_blhk.shape[0])
    heads = partition.global_indices(axes[2], query_blhk.shape[2])
    first = partition.global_indices(axes[1], length)[0]

    def attend(arrays: tuple[Array, Array, Array, Array, Array, Array]) -> Array:
        """One span of queries, [b, h, span, k], to the keys around it."""
        query, key, value, query_segments, key_segments, first = arrays
        query_segments = _blocks(query_segments, block, block)[..., :, None]
        key_segments = _blocks(key_segments, block, keys)[..., None, :]
        visible = (query_segments == key_segments) & (key_segments != 0)
        keep = None
        if dropout_key is not None:
            positions = first + jnp.arange(span, dtype=jnp.int32)
            numbers_bhl = number_queries(
                rows, heads, positions, num_heads=num_heads, length=sequence_length
            )
            keep = _kept_in_blocks(dropout_key, dropout_rate, numbers_bhl, positions, relative)
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
            with_neighbours(key_bhlk),
            with_neighbours(value_bhlk),
            segments_sb1l,
            with_neighbours(segment_ids[:, None, :]),
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


def _kept_in_blocks(
    dropout_key: Array,
    dropout_rate: float,
    numbers_bhl: Array,
    positions: Array,
    relative: np.ndarray,
) -> Array:
    """`kept`, of a span's queries, [l], with these numbers and positions, in blocks, and of the
    keys that each block reads."""
    block = relative.shape[0]
    return kept(
        dropout_key,
        dropout_rate,
        queries=numbers_bhl.reshape(*numbers_bhl.shape[:2], -1, block, 1),
        keys=positions.reshape(-1, block, 1) + relative[None].astype(np.int32),
    )


def _bias_of_block(bias: Array, block: int, causal: bool) -> Array:
    """[h, 2 * radius + 1] to [1, h, 1, block, keys]; what is beyond the radius is hidden."""
    beyond = (block, 0 if causal else block)
    return toeplitz(jnp.pad(bias, ((0, 0), beyond)), block)[None, :, None]


def _with_neighbours(
    array_bhlk: Array, spans: int, span: int, block: int, *, causal: bool, sharded: bool
) -> Array:
    """[b, h, l, ...] to [spans, b, h, span and the blocks beside it, ...], those behind it only if
    not `causal`; at the ends of a shard they are the neighbours' own."""

    def neighbour(block_bhlk: Array, distance: int) -> Array:
        """The block before the first one, or after the last, from that of the shard before."""
        if not sharded:
            return jnp.zeros_like(block_bhlk)
        return partition.from_shard_before(block_bhlk, distance)

    blocks_bhlk = [neighbour(array_bhlk[:, :, -block:], 1), array_bhlk]
    if not causal:
        blocks_bhlk.append(neighbour(array_bhlk[:, :, :block], -1))
    beyond = block if causal else 2 * block
    extended = jnp.concatenate(blocks_bhlk, axis=2)
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
