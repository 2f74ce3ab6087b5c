"""Window attention by its definition, with a mask over all pairs."""

import jax
import jax.numpy as jnp
import numpy as np

from spade_jax.ops.attention.window import WINDOW_ATTENTION


def visible_pairs(length, radius, causal, segment_ids=None):
    """Bool [b, l, l]: may query i (axis 1) see key j (axis 2)?"""
    if segment_ids is None:
        segment_ids = np.ones((1, length), int)
    query, key = np.arange(length)[:, None], np.arange(length)[None, :]
    within = (np.abs(query - key) <= radius) & ((key <= query) | (not causal))
    same = segment_ids[:, :, None] == segment_ids[:, None, :]
    return within[None] & same & (segment_ids[:, None, :] != 0)


def dense_window_attention(
    query, key, value, *, radius, causal, segment_ids=None, bias=None, kept=1.0
):
    """What `window_attention` computes, with arrays of l x l; `kept` is what dropout multiplies the
    probabilities by."""
    length = query.shape[1]
    visible = jnp.asarray(visible_pairs(length, radius, causal, segment_ids))[:, None]
    scores = jnp.einsum("bqhk,bjhk->bhqj", query, key, precision="highest")
    if bias is not None:
        relative = np.arange(length)[None, :] - np.arange(length)[:, None]
        scores += bias[:, np.clip(relative + radius, 0, 2 * radius)][None]
    probabilities = jax.nn.softmax(jnp.where(visible, scores, -1e30), axis=-1)
    probabilities = jnp.where(visible, probabilities, 0.0) * kept
    return jnp.einsum("bhqj,bjhk->bqhk", probabilities, value, precision="highest")


def _attend(query, key, value, segment_ids, bias, dropout_key, *, radius, causal, dropout_rate):
    """As an implementation takes its arguments."""
    return dense_window_attention(
        query, key, value, radius=radius, causal=causal, segment_ids=segment_ids, bias=bias
    )


def _refuses(*arguments, dropout_rate, **settings):
    if dropout_rate > 0:
        return "has no dropout"
    return None if arguments[0].dtype == np.float32 else f"has no {arguments[0].dtype}"


# A second implementation of the operation, which the suite runs over as well.
WINDOW_ATTENTION.register("dense", _attend, refuses=_refuses)
