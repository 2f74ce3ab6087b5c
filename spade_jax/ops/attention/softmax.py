"""Softmax attention over keys that a query may or may not see: the core of every attention here."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from spade_jax.ops.attention.weights import weights_alone
from spade_jax.ops.precision import matmul_precision

# The name of what attention gives, its log-sums included where the backward pass needs them: by it
# a rematerialisation policy can keep them. Implementations give it, for they know what that is.
ATTENDED = "attended"
# The log-sum of a query that sees no key.
LOWEST = float(jnp.finfo(jnp.float32).min)


def named(arrays: Any) -> Any:
    """A tree of arrays by the name ATTENDED."""
    return jax.tree.map(lambda array: checkpoint_name(array, ATTENDED), arrays)


def softmax_attention(
    query: Array,
    key: Array,
    value: Array,
    *,
    visible: Array | None,
    bias: Array | None,
    weights: str = "softmax",
    dropout_rate: float = 0.0,
    kept: Array | None = None,
) -> tuple[Array, Array]:
    """softmax(query key^T + bias) value, the sum running over the visible keys alone.

    The scores and their softmax are float32 whatever the inputs are. With the second result,
    attention to several sets of keys can be put together: each weighs as much as its sum.

    Args:
      query: [..., q, k], already scaled.
      key, value: [..., j, k].
      visible: bool, broadcastable to [..., q, j]; None: every key is visible.
      bias: float32, broadcastable to [..., q, j], added to the scores.
      weights: one of `weights.WEIGHTS`; others than "softmax" stand in its place, and have no sums.
      dropout_rate: which share of the probabilities is dropped, the others growing in proportion.
      kept: bool, broadcastable to [..., q, j], which are not; None: all are there.

    Returns:
      [..., q, k] in the dtype of `query`, zero where a query sees no key; and the logarithm of the
      sum of exp(score) over the visible keys, float32 [..., q], the lowest number where it sees
      none.
    """
    probabilities, log_sum = probabilities_of(
        scores_of(query, key), visible=visible, bias=bias, weights=weights
    )
    if kept is not None:
        probabilities = jnp.where(kept, probabilities / (1.0 - dropout_rate), 0.0)
    return weighted(probabilities, value).astype(query.dtype), log_sum


def probabilities_of(
    scores: Array, *, visible: Array | None, bias: Array | None, weights: str
) -> tuple[Array, Array]:
    """Of scores float32 [..., q, j]; all else is that of `softmax_attention`."""
    if weights != "softmax":
        probabilities = weights_alone(scores, visible=visible, bias=bias, weights=weights)
        return probabilities, jnp.zeros(scores.shape[:-1], scores.dtype)
    if bias is not None:
        scores = scores + bias.astype(jnp.float32)
    if visible is not None:
        scores = jnp.where(visible, scores, -jnp.inf)
    return _softmax(scores)


def weighted(probabilities: Array, value: Array) -> Array:
    """Sums of values [..., j, k] by probabilities [..., q, j]: [..., q, k]."""
    return jnp.einsum(
        "...qj,...jk->...qk",
        probabilities.astype(value.dtype),
        value,
        precision=matmul_precision(value.dtype),
    )


@jax.custom_vjp
def scores_of(query: Array, key: Array) -> Array:
    """query key^T, summed up and returned in float32."""
    return jnp.einsum(
        "...qk,...jk->...qj",
        query,
        key,
        precision=matmul_precision(query.dtype),
        preferred_element_type=jnp.float32,
    )


def _scores_forward(query: Array, key: Array) -> tuple[Array, tuple[Array, Array]]:
    return scores_of(query, key), (query, key)


def _scores_backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    """In the operands' dtype: JAX's own rule would multiply in float32, slowly, for bfloat16."""
    query, key = saved
    gradient, precision = gradient.astype(query.dtype), matmul_precision(query.dtype)
    return (
        jnp.einsum("...qj,...jk->...qk", gradient, key, precision=precision),
        jnp.einsum("...qj,...qk->...jk", gradient, query, precision=precision),
    )


scores_of.defvjp(_scores_forward, _scores_backward)


@jax.custom_jvp
def _softmax(scores: Array) -> tuple[Array, Array]:
    """Softmax over the last axis, and the logarithm of its denominator; a row of -inf alone gives
    zeros and the lowest number, and no gradient."""
    # The floor keeps -inf - max from becoming NaN. A row with any finite score sums to at least
    # exp(0) = 1, so that dividing by at least 1 changes empty rows only.
    largest = jnp.max(scores, axis=-1, keepdims=True, initial=jnp.finfo(scores.dtype).min)
    unnormalised = jnp.exp(scores - largest)
    total = jnp.maximum(jnp.sum(unnormalised, axis=-1, keepdims=True), 1.0)
    return unnormalised / total, (largest + jnp.log(total))[..., 0]


@_softmax.defjvp
def _softmax_jvp(
    primals: tuple[Array], tangents: tuple[Array]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """From the probabilities alone, so that nothing else is kept for the backward pass."""
    probabilities, log_sum = _softmax(*primals)
    weighted = probabilities * tangents[0]
    mean = jnp.sum(weighted, axis=-1, keepdims=True)
    return (probabilities, log_sum), (weighted - probabilities * mean, mean[..., 0])


def visible_keys(query_segment_ids: Array | None, key_segment_ids: Array | None) -> Array | None:
    """Bool, broadcastable to [b, h, q, j]: which keys each query may see by their segments, [b, q]
    and [b, j]; None: all of them."""
    if key_segment_ids is None:
        return None
    shown = (key_segment_ids != 0)[:, None, None, :]
    if query_segment_ids is None:
        return shown
    return shown & (query_segment_ids[:, :, None] == key_segment_ids[:, None, :])[:, None]
