"""Sliding-window attention in blocks: time and memory linear in the length."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from spade_jax import partition
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

    Where the ambient mesh cuts sequences, each shard fetches a block of keys and values from its
    neighbours and nothing else. Dropout is then drawn anew for each shard.

    Args:
      query_blhk: [b, l, h, k], already scaled; any length.
      key_blhk, value_blhk: [b, l, h, k].
      radius: how many positions to either side are seen, at least 1.
      causal: see none to the right.
      segment_ids: int [b, l], in any order; 0 is padding, which sees nothing and is never seen.
        None: all of one segment.
      bias: float32 [h, block, keys], added to the scores; a function of the relative position
        alone, see `window_relative_positions`.
      dropout_rate: which share of the probabilities to drop.
      dropout_key: needed where the rate is not zero.

    Returns:
      [b, l, h, k] in the dtype of the queries; zero at padding.

    Raises:
      ConfigError: a radius below 1, a bias of another shape, a dropout rate outside [0, 1) or
        without a key; shards of the sequence that are shorter than a block, or not equal.
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
    shards = partition.sequence_shards()
    require(
        shards == 1 or (length % shards == 0 and length // shards >= block),
        "mesh.sequence",
        shards,
        f"must cut the {length} tokens of a sequence into equal shards of at least {block}, the "
        f"window's radius {radius} and one",
    )
    in_spans = functools.partial(_in_spans, radius=radius, causal=causal, dropout_rate=dropout_rate)
    if shards > 1:
        return _on_shards(
            in_spans, query_blhk, key_blhk, value_blhk, segment_ids, bias, dropout_key
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
    return in_spans(
        query_blhk,
        key_blhk,
        value_blhk,
        segment_ids,
        bias,
        dropout_key,
        before=_no_neighbour,
        after=_no_neighbour,
    )


# The block of an array [b, h, l, ...] next to it; what a shard of a sequence fetches.
Neighbour = Callable[[Array], Array]


def _no_neighbour(block_bhlk: Array) -> Array:
    return jnp.zeros_like(block_bhlk)


def _on_shards(
    in_spans: Callable[..., Array],
    query_blhk: Array,
    key_blhk: Array,
    value_blhk: Array,
    segment_ids: Array | None,
    bias: Array | None,
    dropout_key: Array | None,
) -> Array:
    """`in_spans`, which is `_in_spans` with its settings, of each shard of the sequence."""
    if segment_ids is None:
        segment_ids = jnp.ones(query_blhk.shape[:2], jnp.int32)

    def attend(query, key, value, segment_ids, bias, dropout_key):
        if dropout_key is not None:
            for axis in partition.MESH_AXES:
                dropout_key = jax.random.fold_in(dropout_key, lax.axis_index(axis))
        return in_spans(
            query,
            key,
            value,
            segment_ids,
            bias,
            dropout_key,
            before=partition.from_shard_before,
            after=lambda block: partition.from_shard_before(block, -1),
        )

    tokens = ("batch", "length", "heads", None)
    attend = partition.on_each_device(
        attend, (tokens, tokens, tokens, ("batch", "length"), ("heads",), ()), tokens
    )
    return attend(query_blhk, key_blhk, value_blhk, segment_ids, bias, dropout_key)


def _in_spans(
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
    before: Neighbour,
    after: Neighbour,
) -> Array:
    """`window_attention`, where `before` and `after` turn the last and the first block of keys into
    those that lie before and after them all."""
    relative = window_relative_positions(radius, causal)
    block, keys = relative.shape
    length = query_blhk.shape[1]
    blocks = -(-length // block)
    # A span, unless it is the only one, must be as long as what its last block reads beyond it.
    spans = -(-blocks // max(2, _SPAN // block))
    span = -(-blocks // spans) * block

    def around(array_bhlk: Array) -> Array:
        """[b, h, l, ...] to [spans, b, h, span and its neighbours, ...]."""
        near = [before(array_bhlk[:, :, -block:]), array_bhlk]
        if not causal:
            near.append(after(array_bhlk[:, :, :block]))
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
            around(key_bhlk),
            around(value_bhlk),
            segments_sb1l,
            around(segment_ids[:, None, :]),
            None if dropout_key is None else jax.random.split(dropout_key, spans),
        ),
    )
    attended_bhlk = lax.collapse(jnp.moveaxis(attended_sbhlk, 0, 2), 2, 4)[:, :, :length]
    return attended_bhlk.swapaxes(1, 2)


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
