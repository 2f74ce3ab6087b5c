"""Attention of every query to every key in plain JAX."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from spade_jax.ops.attention.dropout import keeps
from spade_jax.ops.attention.shards import DropoutWords, full_over_shards
from spade_jax.ops.attention.softmax import named, softmax_attention, visible_keys
from spade_jax.ops.toeplitz import toeplitz

# Queries whose scores are in memory at one time.
_SPAN = 1024


def attend(*arrays: Any, **settings: Any) -> Array:
    """`full.full_attention`, a span of queries at a time."""
    return full_over_shards(_in_spans, *arrays, **settings)


def bias_of_all(bias: Array, keys: int) -> Array:
    """`full_attention`'s bias [h, 2n + 1] for all relative positions that so many keys can have:
    [h, 2j - 1]."""
    beyond = keys - 1 - bias.shape[1] // 2
    if beyond < 0:
        return bias[:, -beyond:beyond]
    return jnp.pad(bias, ((0, 0), (beyond, beyond)), mode="edge")


def _in_spans(
    query_bqhk: Array,
    key_bjhk: Array,
    value_bjhk: Array,
    query_segment_ids: Array | None,
    key_segment_ids: Array | None,
    bias: Array | None,
    words: DropoutWords | None,
    *,
    causal: bool,
    dropout_rate: float,
    first_key: Array | int,
    weights: str = "softmax",
) -> tuple[Array, Array]:
    """Attention to these keys alone, as `full_over_shards` puts it together."""
    queries, keys = query_bqhk.shape[1], key_bjhk.shape[1]
    spans = -(-queries // _SPAN)
    span = -(-queries // spans)
    if bias is not None:  # Then there are as many keys as queries, in all shards together.
        bias = bias_of_all(bias, queries)
    query_words_bqh = None if words is None else words.query_bhq.swapaxes(1, 2)
    key_positions = (first_key + jnp.arange(keys, dtype=jnp.int32))[None]

    def attend(
        query_bqhk: Array,
        query_segment_ids: Array | None,
        query_words_bqh: Array | None,
        first_query: Array | int,
        key_bjhk: Array,
        value_bjhk: Array,
        bias: Array | None,
    ) -> tuple[Array, Array]:
        positions = (first_query + jnp.arange(span, dtype=jnp.int32))[:, None]
        visible = visible_keys(query_segment_ids, key_segment_ids)
        if causal:
            behind = (key_positions <= positions)[None, None]
            visible = behind if visible is None else visible & behind
        if bias is not None:
            beyond = spans * span - queries
            bias = _bias_of_span(bias, jnp.asarray(first_key - first_query), span, keys, beyond)
        keep = None
        if words is not None and query_words_bqh is not None:
            queries_bhq1 = query_words_bqh.swapaxes(1, 2)[..., None]
            keep = keeps(queries_bhq1, words.key_j[None, None, None], dropout_rate)
        attended_bhqk, log_sum_bhq = softmax_attention(
            query_bqhk.swapaxes(1, 2),
            key_bjhk.swapaxes(1, 2).astype(query_bqhk.dtype),
            value_bjhk.swapaxes(1, 2).astype(query_bqhk.dtype),
            visible=visible,
            bias=bias,
            weights=weights,
            dropout_rate=dropout_rate,
            kept=keep,
        )
        return attended_bhqk.swapaxes(1, 2), log_sum_bhq.swapaxes(1, 2)

    # The backward pass computes the probabilities again instead of keeping them.
    attend = jax.checkpoint(attend, prevent_cse=spans == 1)
    if spans == 1:
        return named(
            attend(query_bqhk, query_segment_ids, query_words_bqh, 0, key_bjhk, value_bjhk, bias)
        )

    def in_spans(array: Array) -> Array:
        return _cut(array, spans, span)

    # In float32 so that their gradients, to which each span adds, are summed in it.
    wide_key, wide_value = key_bjhk.astype(jnp.float32), value_bjhk.astype(jnp.float32)
    attended, log_sum = lax.map(
        lambda inputs: attend(*inputs, wide_key, wide_value, bias),
        (
            in_spans(query_bqhk),
            None if query_segment_ids is None else in_spans(query_segment_ids),
            None if query_words_bqh is None else in_spans(query_words_bqh),
            span * jnp.arange(spans, dtype=jnp.int32),
        ),
    )
    return named((_join(attended)[:, :queries], _join(log_sum)[:, :queries]))


def _bias_of_span(bias: Array, distance: Array, span: int, keys: int, beyond: int) -> Array:
    """The bias [1, h, span, keys] of a span of queries, out of that of all relative positions.

    Args:
      distance: from the first query to the first key.
      beyond: queries that fill up the last span, and reach to before the first of the biases.
    """
    all_keys = (bias.shape[1] + 1) // 2
    bias = lax.dynamic_slice_in_dim(
        jnp.pad(bias, ((0, 0), (beyond, 0))),
        distance - span + all_keys + beyond,
        span + keys - 1,
        axis=1,
    )
    return toeplitz(bias, span)[None]


def _cut(array: Array, spans: int, span: int) -> Array:
    """[b, q, ...], filled up with zeros, to [spans, b, span, ...]."""
    padding = [(0, 0)] * array.ndim
    padding[1] = (0, spans * span - array.shape[1])
    array = jnp.pad(array, padding)
    return jnp.moveaxis(array.reshape(array.shape[0], spans, span, *array.shape[2:]), 1, 0)


def _join(array: Array) -> Array:
    """[spans, b, span, ...] to [b, spans * span, ...]."""
    return lax.collapse(jnp.moveaxis(array, 0, 1), 1, 3)
