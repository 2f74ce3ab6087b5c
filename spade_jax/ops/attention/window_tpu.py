"""Sliding-window attention by TPU kernels: what they take, and how arrays come to them."""

import functools

import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from spade_jax import partition
from spade_jax.ops.attention import tpu_tiles, window_tpu_kernels
from spade_jax.ops.attention.softmax import ATTENDED
from spade_jax.ops.attention.tpu_tiles import BLOCK, HIDDEN
from spade_jax.ops.attention.window_tpu_kernels import Window
from spade_jax.ops.dispatch import interprets, runs_elsewhere

# Queries of a kernel's step, about.
_SPAN = 512
# A block of queries and all keys that it sees are one tile of scores.
_MAX_RADIUS = 1024


def refuses(
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
) -> str | None:
    """Why the kernels cannot take these arguments, or None."""
    if (reason := runs_elsewhere("tpu")) is not None:
        return reason
    if dropout_key is not None:
        return f"has no dropout (dropout_rate = {dropout_rate})"
    if radius > _MAX_RADIUS:
        return f"takes no radius = {radius}: {_MAX_RADIUS} at most"
    return tpu_tiles.refuses_arrays(query_blhk, key_blhk, value_blhk)


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
    """`window.window_attention`, without dropout.

    Where the ambient mesh cuts sequences into shards of at least a radius, each fetches so many
    keys and values from its neighbours and nothing else.
    """
    rows, length, _, _ = query_blhk.shape
    if segment_ids is None:
        segment_ids = jnp.ones((rows, length), jnp.int32)
    axes = partition.sharded_axes(("batch", "length", "heads", None), query_blhk.shape)
    if length < partition.sequence_shards() * radius:
        axes = (axes[0], None, *axes[2:])
    on_shard = functools.partial(
        _attend_on_shard,
        radius=radius,
        causal=causal,
        sharded=axes[1] is not None,
        interpret=interprets(),
    )
    on_devices = partition.on_each_device(on_shard, (axes, axes, axes, axes[:2], (axes[2],)), axes)
    attended = on_devices(
        query_blhk,
        key_blhk.astype(query_blhk.dtype),
        value_blhk.astype(query_blhk.dtype),
        segment_ids,
        bias,
    )
    return checkpoint_name(attended, ATTENDED)


def _attend_on_shard(
    query_blhk: Array,
    key_blhk: Array,
    value_blhk: Array,
    segment_ids: Array,
    bias: Array | None,
    *,
    radius: int,
    causal: bool,
    sharded: bool,
    interpret: bool,
) -> Array:
    """`attend`, of one shard."""
    _, length, count, _ = query_blhk.shape
    heads = tpu_tiles.heads_of(count, query_blhk.shape[-1], value_blhk.shape[-1])
    q, k, v = (tpu_tiles.to_lanes(array, heads) for array in (query_blhk, key_blhk, value_blhk))
    segments = segment_ids.astype(jnp.int32)
    first = 0
    if sharded:
        # The neighbours' keys lie around the shard's own; their queries are nothing.
        first, after = radius, 0 if causal else radius
        k, v, segments = (_between_neighbours(array, first, after) for array in (k, v, segments))
        q = jnp.pad(q, ((0, 0), (first, after), (0, 0)))
    reach = -(-radius // BLOCK)
    span, spans = _spans(q.shape[1], reach * BLOCK)
    window = Window(
        heads, reach, 0 if causal else reach, span, biased=bias is not None, interpret=interpret
    )
    attended = window_tpu_kernels.attend(
        *(tpu_tiles.filled_up(array, spans * span, axis=1) for array in (q, k, v)),
        _vector(bias, count, radius, causal, window),
        tpu_tiles.filled_up(segments, spans * span, axis=1),
        window,
    )
    return tpu_tiles.from_lanes(
        attended[:, first : first + length], heads, count, value_blhk.shape[-1]
    )


def _spans(length: int, unit: int) -> tuple[int, int]:
    """How long the spans of queries are, whole multiples of a unit, and how many."""
    spans = max(1, length // max(_SPAN, unit))
    span = -(-length // (spans * unit)) * unit
    return span, -(-length // span)


def _between_neighbours(array: Array, before: int, after: int) -> Array:
    """[b, l, ...] with what the shard before ends with, and the one behind begins with."""
    parts = [partition.from_shard_before(array[:, array.shape[1] - before :]), array]
    if after:
        parts.append(partition.from_shard_before(array[:, :after], -1))
    return jnp.concatenate(parts, axis=1)


def _vector(bias: Array | None, count: int, radius: int, causal: bool, window: Window) -> Array:
    """What a query adds to the scores of its keys, as `window_tpu_kernels.attend` takes it: the
    bias [h, 2 * radius + 1] within the window, HIDDEN beyond it."""
    heads, seen = window.heads, radius + 1 if causal else 2 * radius + 1
    if bias is None:
        bias = jnp.zeros((count, seen), jnp.float32)
    bias = tpu_tiles.filled_up(bias[:, :seen].astype(jnp.float32), heads.count, axis=0)
    first = window.before * BLOCK - radius
    rest = window.ring - first - seen
    ring = jnp.pad(bias, ((0, 0), (first, rest)), constant_values=HIDDEN)
    return ring.reshape(heads.groups, heads.in_group, window.ring)
