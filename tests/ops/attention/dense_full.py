"""Full attention by its definition, with arrays of queries x keys in float32."""

import jax
import jax.numpy as jnp
import numpy as np


def visible_pairs(queries, keys, causal, query_segment_ids=None, key_segment_ids=None):
    """Bool [b or 1, q, j]: may query i (axis 1) see key j (axis 2)?"""
    behind = np.arange(keys)[None, :] <= np.arange(queries)[:, None]
    visible = (behind | (not causal))[None]
    if key_segment_ids is not None:
        visible = visible & (key_segment_ids != 0)[:, None, :]
    if query_segment_ids is not None:
        visible = visible & (query_segment_ids[:, :, None] == key_segment_ids[:, None, :])
    return visible


def dense_full_attention(
    query, key, value, *, causal, query_segment_ids=None, key_segment_ids=None, bias=None, kept=1.0
):
    """What `full_attention` computes; `kept` is what dropout multiplies the probabilities by."""
    queries, keys = query.shape[1], key.shape[1]
    visible = visible_pairs(queries, keys, causal, query_segment_ids, key_segment_ids)[:, None]
    scores = jnp.einsum("bqhk,bjhk->bhqj", query, key, precision="highest")
    if bias is not None:
        relative = np.arange(keys)[None, :] - np.arange(queries)[:, None]
        reach = bias.shape[1] // 2
        scores += bias[:, np.clip(relative, -reach, reach) + reach][None]
    probabilities = jax.nn.softmax(jnp.where(visible, scores, -1e30), axis=-1)
    probabilities = jnp.where(visible, probabilities, 0.0) * kept
    return jnp.einsum("bhqj,bjhk->bqhk", probabilities, value, precision="highest")
