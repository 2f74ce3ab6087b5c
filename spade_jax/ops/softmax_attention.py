"""Softmax attention over keys that a query may or may not see: the core of every attention here."""

import jax
import jax.numpy as jnp
from jax import Array

from spade_jax.config import require
from spade_jax.ops.precision import matmul_precision


def softmax_attention(
    query: Array,
    key: Array,
    value: Array,
    *,
    visible: Array | None,
    bias: Array | None,
    dropout_rate: float,
    dropout_key: Array | None,
) -> Array:
    """softmax(query key^T + bias) value, the sum running over the visible keys alone.

    The scores and their softmax are float32 whatever the inputs are.

    Args:
      query: [..., q, k], already scaled.
      key, value: [..., j, k].
      visible: bool, broadcastable to [..., q, j]; None: every key is visible.
      bias: float32, broadcastable to [..., q, j], added to the scores.
      dropout_rate: which share of the probabilities to drop, the others growing in proportion.
      dropout_key: needed where the rate is not zero.

    Returns:
      [..., q, k] in the dtype of `query`; zero where a query sees no key.

    Raises:
      ConfigError: a rate outside [0, 1), or without a key.
    """
    require(0.0 <= dropout_rate < 1.0, "dropout_rate", dropout_rate, "must be in [0, 1)")
    require(
        dropout_rate == 0.0 or dropout_key is not None,
        "dropout_rate",
        dropout_rate,
        "must be 0 without a dropout_key",
    )
    scores = _scores(query, key)
    if bias is not None:
        scores = scores + bias.astype(jnp.float32)
    if visible is not None:
        scores = jnp.where(visible, scores, -jnp.inf)
    probabilities = _softmax(scores)
    if dropout_key is not None and dropout_rate > 0.0:
        keep = jax.random.bernoulli(dropout_key, 1.0 - dropout_rate, probabilities.shape)
        probabilities = jnp.where(keep, probabilities / (1.0 - dropout_rate), 0.0)
    return jnp.einsum(
        "...qj,...jk->...qk",
        probabilities.astype(value.dtype),
        value,
        precision=matmul_precision(value.dtype),
    ).astype(query.dtype)


@jax.custom_vjp
def _scores(query: Array, key: Array) -> Array:
    """query key^T, summed up and returned in float32."""
    return jnp.einsum(
        "...qk,...jk->...qj",
        query,
        key,
        precision=matmul_precision(query.dtype),
        preferred_element_type=jnp.float32,
    )


def _scores_forward(query: Array, key: Array) -> tuple[Array, tuple[Array, Array]]:
    return _scores(query, key), (query, key)


def _scores_backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    """In the operands' dtype: JAX's own rule would multiply in float32, slowly, for bfloat16."""
    query, key = saved
    gradient, precision = gradient.astype(query.dtype), matmul_precision(query.dtype)
    return (
        jnp.einsum("...qj,...jk->...qk", gradient, key, precision=precision),
        jnp.einsum("...qj,...qk->...jk", gradient, query, precision=precision),
    )


_scores.defvjp(_scores_forward, _scores_backward)


@jax.custom_jvp
def _softmax(scores: Array) -> Array:
    """Softmax over the last axis; a row of -inf alone gives zeros, and no gradient."""
    # The floor keeps -inf - max from becoming NaN. A row with any finite score sums to at least
    # exp(0) = 1, so that dividing by at least 1 changes empty rows only.
    largest = jnp.max(scores, axis=-1, keepdims=True, initial=jnp.finfo(scores.dtype).min)
    unnormalised = jnp.exp(scores - largest)
    return unnormalised / jnp.maximum(jnp.sum(unnormalised, axis=-1, keepdims=True), 1.0)


@_softmax.defjvp
def _softmax_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """From the probabilities alone, so that nothing else is kept for the backward pass."""
    probabilities = _softmax(*primals)
    weighted = probabilities * tangents[0]
    mean = jnp.sum(weighted, axis=-1, keepdims=True)
    return probabilities, weighted - probabilities * mean
