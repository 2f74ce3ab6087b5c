"""Attention on a mesh: which pieces meet on a device, and how what they find is put together.

Written once for all implementations: each of them attends on one device.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from spade_jax import partition
from spade_jax.ops.attention.dropout import key_words, number_queries, query_words
from spade_jax.ops.attention.softmax import named


class DropoutWords(NamedTuple):
    """What decides which probabilities of a piece dropout keeps: `dropout.keeps`.

    Attributes:
      query_bhq: uint32 [b, h, q].
      key_j: uint32 [j].
    """

    query_bhq: Array
    key_j: Array


def full_over_shards(
    attend_to_keys: Callable[..., tuple[Array, Array | None]],
    query_bqhk: Array,
    key_bjhk: Array,
    value_bjhk: Array,
    query_segment_ids: Array | None,
    key_segment_ids: Array | None,
    bias: Array | None,
    dropout_key: Array | None,
    *,
    causal: bool,
    dropout_rate: float,
    chunk_size: int | None = None,
    **weights: str,
) -> Array:
    """`full.full_attention` on the ambient mesh, of what attends on one device.

    Where the mesh cuts sequences, keys stay where they are: each shard attends from all queries to
    its own keys, and what they find is put together by the sums of their softmax. Queries and
    results move, of which an encoder-decoder has fewer than keys. Weights that are no softmax have
    no sums: with them keys are whole everywhere. So are chunks, which need nothing of each other.

    Args:
      attend_to_keys: takes queries, keys, values, segments of both, bias and `DropoutWords` or
        None; then by name causal, dropout_rate, and first_key, where the first key lies if the
        first query lies at 0: an int, or int32 scalar (without bias or `causal` it does not
        matter). Gives [b, q, h, k] and the logarithms of the sums, float32 [b, q, h], as
        `softmax_attention` does, both by the name ATTENDED; None for the latter if it refuses keys
        that are cut.
      weights: what else it takes by name.
    """
    length = None if weights and chunk_size is None else "length"
    query_axes, key_axes = (
        partition.sharded_axes(("batch", length, "heads", None), array.shape, chunk_size or 1)
        for array in (query_bqhk, key_bjhk)
    )
    attend_to_keys = functools.partial(
        attend_to_keys, causal=causal, dropout_rate=dropout_rate, **weights
    )
    on_shard = functools.partial(
        _full_on_shard
        if chunk_size is None
        else functools.partial(_chunks_on_shard, size=chunk_size),
        attend_to_keys=attend_to_keys,
        num_heads=query_bqhk.shape[2],
        length=query_bqhk.shape[1],
        query_axes=query_axes,
        key_axes=key_axes,
    )
    by_head = (query_axes[2],)
    on_devices = partition.on_each_device(
        on_shard,
        (query_axes, key_axes, key_axes, query_axes[:2], key_axes[:2], by_head, ()),
        query_axes,
    )
    return on_devices(
        query_bqhk, key_bjhk, value_bjhk, query_segment_ids, key_segment_ids, bias, dropout_key
    )


def _full_on_shard(
    query_bqhk: Array,
    key_bjhk: Array,
    value_bjhk: Array,
    query_segment_ids: Array | None,
    key_segment_ids: Array | None,
    bias: Array | None,
    dropout_key: Array | None,
    *,
    attend_to_keys: Callable[..., tuple[Array, Array | None]],
    num_heads: int,
    length: int,
    query_axes: tuple[str | None, ...],
    key_axes: tuple[str | None, ...],
) -> Array:
    """Of one shard of so many heads and queries; the axes are those that are cut into shards."""
    keys_cut, queries_cut = key_axes[1] is not None, query_axes[1] is not None
    if keys_cut and queries_cut:
        query_bqhk = lax.all_gather(query_bqhk, "sequence", axis=1, tiled=True)
        if query_segment_ids is not None:
            query_segment_ids = lax.all_gather(query_segment_ids, "sequence", axis=1, tiled=True)
    first_key: Array | int = 0
    if keys_cut:
        first_key = partition.global_indices(key_axes[1], key_bjhk.shape[1])[0]
    words = None
    if dropout_key is not None:
        queries = partition.global_indices(None if keys_cut else query_axes[1], query_bqhk.shape[1])
        words = _words(
            dropout_key,
            query_axes,
            query_bqhk.shape,
            queries,
            first_key + jnp.arange(key_bjhk.shape[1], dtype=jnp.int32),
            num_heads=num_heads,
            length=length,
        )
    attended_bqhk, log_sum_bqh = attend_to_keys(
        query_bqhk,
        key_bjhk.astype(query_bqhk.dtype),
        value_bjhk.astype(query_bqhk.dtype),
        query_segment_ids,
        key_segment_ids,
        bias,
        words,
        first_key=first_key,
    )
    if not keys_cut:
        return attended_bqhk
    assert log_sum_bqh is not None
    return named(_together(attended_bqhk, log_sum_bqh, queries_cut))


def _chunks_on_shard(
    query_blhk: Array,
    key_blhk: Array,
    value_blhk: Array,
    query_segment_ids: Array | None,
    key_segment_ids: Array | None,
    bias: Array | None,
    dropout_key: Array | None,
    *,
    attend_to_keys: Callable[..., tuple[Array, Array | None]],
    size: int,
    num_heads: int,
    length: int,
    query_axes: tuple[str | None, ...],
    key_axes: tuple[str | None, ...],
) -> Array:
    """Of one shard of whole chunks, which are rows to what attends."""

    def folded(array: Array | None) -> Array | None:
        """[b, l, ...] to [b * chunks, size, ...]."""
        return None if array is None else array.reshape(-1, size, *array.shape[2:])

    words = None
    if dropout_key is not None:
        words = _words(
            dropout_key,
            query_axes,
            query_blhk.shape,
            partition.global_indices(query_axes[1], query_blhk.shape[1]),
            jnp.arange(size, dtype=jnp.int32),
            num_heads=num_heads,
            length=length,
        )
        by_chunk = folded(words.query_bhq.swapaxes(1, 2))
        assert by_chunk is not None
        words = words._replace(query_bhq=by_chunk.swapaxes(1, 2))
    attended, _ = attend_to_keys(
        folded(query_blhk),
        folded(key_blhk.astype(query_blhk.dtype)),
        folded(value_blhk.astype(query_blhk.dtype)),
        folded(query_segment_ids),
        folded(key_segment_ids),
        bias,
        words,
        first_key=0,
    )
    return attended.reshape(*query_blhk.shape[:3], -1)


def _together(attended_bqhk: Array, log_sum_bqh: Array, queries_cut: bool) -> Array:
    """What all shards found for the queries, each weighing as much as the sum of its softmax."""
    largest = lax.pmax(lax.stop_gradient(log_sum_bqh), "sequence")
    weight_bqh = jnp.exp(log_sum_bqh - largest)
    weight_bqh = weight_bqh / lax.psum(weight_bqh, "sequence")
    part_bqhk = attended_bqhk.astype(jnp.float32) * weight_bqh[..., None]
    if queries_cut:
        total_bqhk = lax.psum_scatter(part_bqhk, "sequence", scatter_dimension=1, tiled=True)
    else:
        total_bqhk = lax.psum(part_bqhk, "sequence")
    return total_bqhk.astype(attended_bqhk.dtype)


def window_over_shards(
    attend_to_window: Callable[..., Array],
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
    """`window.window_attention` on the ambient mesh, of what attends on one device.

    Where the mesh cuts sequences into shards of at least radius + 1 tokens, each fetches so many
    keys and values from its neighbours and nothing else.

    Args:
      attend_to_window: takes queries [b, l, h, k]; keys and values [b, j, h, k]; segments [b, l]
        and [b, j], or None for both; bias and `DropoutWords` or None; then by name radius, causal,
        dropout_rate, and before, how many keys lie before the first query: 0 or radius + 1, and
        then as many behind the last one unless `causal`, of segment 0 at the sequence's ends.
        Gives [b, l, h, k] by the name ATTENDED.
    """
    rows, length, heads, _ = query_blhk.shape
    axes = partition.sharded_axes(("batch", "length", "heads", None), query_blhk.shape)
    if length < partition.sequence_shards() * (radius + 1):
        axes = (axes[0], None, *axes[2:])
    if segment_ids is None and axes[1] is not None:
        segment_ids = jnp.ones((rows, length), jnp.int32)
    on_shard = functools.partial(
        _window_on_shard,
        attend_to_window=functools.partial(
            attend_to_window, radius=radius, causal=causal, dropout_rate=dropout_rate, **weights
        ),
        border=0 if axes[1] is None else radius + 1,
        causal=causal,
        num_heads=heads,
        length=length,
        axes=axes,
    )
    on_devices = partition.on_each_device(
        on_shard, (axes, axes, axes, axes[:2], (axes[2],), ()), axes
    )
    return on_devices(query_blhk, key_blhk, value_blhk, segment_ids, bias, dropout_key)


def _window_on_shard(
    query_blhk: Array,
    key_blhk: Array,
    value_blhk: Array,
    segment_ids: Array | None,
    bias: Array | None,
    dropout_key: Array | None,
    *,
    attend_to_window: Callable[..., Array],
    border: int,
    causal: bool,
    num_heads: int,
    length: int,
    axes: tuple[str | None, ...],
) -> Array:
    """Of one shard of so many heads and of a sequence of this length; the axes are those that are
    cut into shards."""
    key_bjhk, value_bjhk, key_segment_ids = key_blhk, value_blhk, segment_ids
    if border > 0:
        key_bjhk, value_bjhk, key_segment_ids = (
            _with_borders(array, border, causal) for array in (key_blhk, value_blhk, segment_ids)
        )
    words = None
    if dropout_key is not None:
        queries = partition.global_indices(axes[1], query_blhk.shape[1])
        words = _words(
            dropout_key,
            axes,
            query_blhk.shape,
            queries,
            queries[0] - border + jnp.arange(key_bjhk.shape[1], dtype=jnp.int32),
            num_heads=num_heads,
            length=length,
        )
    return attend_to_window(
        query_blhk,
        key_bjhk.astype(query_blhk.dtype),
        value_bjhk.astype(query_blhk.dtype),
        segment_ids,
        key_segment_ids,
        bias,
        words,
        before=border,
    )


def _with_borders(array: Array | None, border: int, causal: bool) -> Array:
    """[b, l, ...] and so many tokens of the neighbours on both sides, before only if `causal`; at
    the ends of the sequence zeros."""
    assert array is not None
    pieces = [partition.from_shard_before(array[:, -border:], 1), array]
    if not causal:
        pieces.append(partition.from_shard_before(array[:, :border], -1))
    return jnp.concatenate(pieces, axis=1)


def _words(
    dropout_key: Array,
    axes: tuple[str | None, ...],
    shape: tuple[int, ...],
    queries: Array,
    keys: Array,
    **whole: Any,
) -> DropoutWords:
    """Of a piece of queries [b, q, h, k] with these axes, and of keys, by their positions."""
    numbers_bhq = number_queries(
        partition.global_indices(axes[0], shape[0]),
        partition.global_indices(axes[2], shape[2]),
        queries,
        **whole,
    )
    return DropoutWords(query_words(dropout_key, numbers_bhq), key_words(dropout_key, keys))
