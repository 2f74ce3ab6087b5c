"""Full attention where queries, keys and values may be cut into shards: what all ways to compute
it have in common."""

import functools
from typing import Protocol

import jax.numpy as jnp
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name

from spade_jax import partition
from spade_jax.ops.attention.dropout import number_queries
from spade_jax.ops.attention.softmax import ATTENDED


class AttendTo(Protocol):
    """Attention to some of the keys."""

    def __call__(
        self,
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
        numbers_bqh: Array,
        first_key: Array | int,
    ) -> tuple[Array, Array]:
        """Attention to these keys alone, [b, q, h, k], and the logarithms of its sums, float32
        [b, q, h], the lowest numbers where nothing is seen; named ATTENDED, as far as the backward
        pass needs them.

        numbers_bqh are those of the queries, for dropout; first_key is the position of the first
        key, where that of the first query is 0 (with neither bias nor `causal` it does not matter).
        """
        ...


def attend(
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
    attend_to: AttendTo,
) -> Array:
    """`full.full_attention`, of what `attend_to` finds.

    Where the ambient mesh cuts sequences, keys stay where they are: each shard attends from all
    queries to its own keys, and what they find is put together by the sums of their softmax.
    Queries and results move, of which an encoder-decoder has fewer than keys.
    """
    query_axes, key_axes = (
        partition.sharded_axes(("batch", "length", "heads", None), array.shape)
        for array in (query_bqhk, key_bjhk)
    )
    on_shard = functools.partial(
        _attend_on_shard,
        causal=causal,
        dropout_rate=dropout_rate,
        attend_to=attend_to,
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


def _attend_on_shard(
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
    attend_to: AttendTo,
    num_heads: int,
    length: int,
    query_axes: tuple[str | None, ...],
    key_axes: tuple[str | None, ...],
) -> Array:
    """`attend`, of one shard of so many heads and queries; the axes are those that are cut
    into shards."""
    keys_cut, queries_cut = key_axes[1] is not None, query_axes[1] is not None
    if keys_cut and queries_cut:
        query_bqhk = lax.all_gather(query_bqhk, "sequence", axis=1, tiled=True)
        if query_segment_ids is not None:
            query_segment_ids = lax.all_gather(query_segment_ids, "sequence", axis=1, tiled=True)
    numbers_bhq = number_queries(
        partition.global_indices(query_axes[0], query_bqhk.shape[0]),
        partition.global_indices(query_axes[2], query_bqhk.shape[2]),
        partition.global_indices(None if keys_cut else query_axes[1], query_bqhk.shape[1]),
        num_heads=num_heads,
        length=length,
    )
    attended_bqhk, log_sum_bqh = attend_to(
        query_bqhk,
        key_bjhk,
        value_bjhk,
        query_segment_ids,
        key_segment_ids,
        bias,
        dropout_key,
        causal=causal,
        dropout_rate=dropout_rate,
        numbers_bqh=numbers_bhq.swapaxes(1, 2),
        first_key=partition.global_indices(key_axes[1], key_bjhk.shape[1])[0] if keys_cut else 0,
    )
    if not keys_cut:
        return attended_bqhk
    largest = lax.pmax(lax.stop_gradient(log_sum_bqh), "sequence")
    weight_bqh = jnp.exp(log_sum_bqh - largest)
    weight_bqh = weight_bqh / lax.psum(weight_bqh, "sequence")
    part_bqhk = attended_bqhk.astype(jnp.float32) * weight_bqh[..., None]
    if queries_cut:
        total_bqhk = lax.psum_scatter(part_bqhk, "sequence", scatter_dimension=1, tiled=True)
    else:
        total_bqhk = lax.psum(part_bqhk, "sequence")
    return checkpoint_name(total_bqhk.astype(query_bqhk.dtype), ATTENDED)
