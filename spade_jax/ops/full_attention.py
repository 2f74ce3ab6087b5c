"""Attention of every query to every key: the decoder's self- and cross-attention."""

import jax
import jax.numpy as jnp
from jax import Array

from spade_jax.config import require
from spade_jax.ops.softmax_attention import softmax_attention


def full_attention(
    query_bqhk: Array,
    key_bjhk: Array,
    value_bjhk: Array,
    *,
    causal: bool,
    query_segment_ids: Array | None = None,
    key_segment_ids: Array | None = None,
    bias: Array | None = None,
    dropout_rate: float = 0.0,
    dropout_key: Array | None = None,
) -> Array:
    """Softmax attention of q queries to j keys (arXiv 1706.03762).

    Args:
      query_bqhk: [b, q, h, k], already scaled.
      key_bjhk, value_bjhk: [b, j, h, k].
      causal: query i sees keys 0 .. i only; q must equal j.
      query_segment_ids, key_segment_ids: int [b, q] and [b, j]. A key of segment 0 (padding) is
        hidden; with both given, a query sees the keys of its own segment alone.
      bias: float32 [h, q, j], added to the scores.
      dropout_rate: which share of the probabilities to drop.
      dropout_key: needed where the rate is not zero.

    Returns:
      [b, q, h, k] in the dtype of the queries; zero where a query sees no key.

    Raises:
      ConfigError: shapes that contradict, segments of queries alone, a dropout rate outside
        [0, 1) or without a key.
    """
    (_, queries, heads, _), keys = query_bqhk.shape, key_bjhk.shape[1]
    require(not causal or queries == keys, "causal", causal, f"{queries} queries, {keys} keys")
    require(
        query_segment_ids is None or key_segment_ids is not None,
        "key_segment_ids",
        None,
        "must be given with query_segment_ids",
    )
    require(
        bias is None or bias.shape == (heads, queries, keys),
        "bias.shape",
        None if bias is None else bias.shape,
        f"must be [h, q, j] = {(heads, queries, keys)}",
    )

    def attend(
        query: Array,
        key: Array,
        value: Array,
        query_segment_ids: Array | None,
        key_segment_ids: Array | None,
        bias: Array | None,
        dropout_key: Array | None,
    ) -> Array:
        return softmax_attention(
            query,
            key,
            value,
            visible=visible_keys(queries, causal, query_segment_ids, key_segment_ids),
            bias=bias,
            dropout_rate=dropout_rate,
            dropout_key=dropout_key,
        )

    # The backward pass computes the [b, h, q, j] probabilities again instead of keeping them.
    attended_bhqk = jax.checkpoint(attend)(
        query_bqhk.swapaxes(1, 2),
        key_bjhk.swapaxes(1, 2),
        value_bjhk.swapaxes(1, 2),
        query_segment_ids,
        key_segment_ids,
        None if bias is None else bias[None],
        dropout_key,
    )
    return attended_bhqk.swapaxes(1, 2)


def visible_keys(
    queries: int, causal: bool, query_segment_ids: Array | None, key_segment_ids: Array | None
) -> Array | None:
    """Bool, broadcastable to [b, h, q, j]: which keys each query sees; None: all of them."""
    visible = jnp.tri(queries, dtype=bool)[None, None] if causal else None
    if key_segment_ids is not None:
        shown = (key_segment_ids != 0)[:, None, None, :]
        if query_segment_ids is not None:
            same = query_segment_ids[:, :, None] == key_segment_ids[:, None, :]
            shown = shown & same[:, None]
        visible = shown if visible is None else visible & shown
    return visible
