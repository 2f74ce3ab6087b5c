"""Window attention by its definition, with a mask over all pairs."""

import jax
import jax.numpy as jnp
import numpy as np


def visible_pairs(length, radius, causal, segment_ids=None):
    """Bool [b, l, l]: may query i (axis 1) see key j (axis 2)?"""
    if segment_ids is None:
        segment_ids = np.ones((1, length), int)
    query, key = np.arange(length)[:, None], np.arange(length)[None, :]
    within = (np.abs(query - key) <= radius) & ((key <= query) | (not causal))
    same = segment_ids[:, :, None] == segment_ids[:, None, :]
    return within[None] & same & (segment_ids[:, None, :] != 0)


def dense_window_attention(query, key, value, *, radius, causal, segment_ids=None, bias=None):
    """What `window_attention` computes, with arrays of l x l."""
    length = query.shape[1]
    visible = jnp.asarray(visible_pairs(length, radius, causal, segment_ids))[:, None]
    scores = jnp.einsum("bqhk,bjhk->bhqj", query, key, precision="highest")
    if bias is not None:
        relative = np.arange(length)[None, :] - np.arange(length)[:, None]
        scores += bias[:, np.clip(relative + radius, 0, 2 * radius)][None]
    probabilities = jax.nn.softmax(jnp.where(visible, scores, -1e30), axis=-1)
    probabilities = jnp.where(visible, probabilities, 0.0)
    return jnp.einsum("bhqj,bjhk->bqhk", probabilities, value, precision="highest")
