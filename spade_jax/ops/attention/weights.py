"""Attention weights that are no softmax: each key weighs by its own score alone (MEGA, 2209.10655).

A score is divided by how many keys the query sees. The weights of a query add up to no fixed sum.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array

# What queries give to keys: "softmax", or one of these.
WEIGHTS = ("softmax", "laplace", "relu2")


def laplace(x: Array) -> Array:
    """(1 + erf((x - mu) / (sigma sqrt(2)))) / 2, mu = sqrt(1/2), sigma = sqrt(1/4pi): close to the
    square of a ReLU, but bounded, and so is its gradient."""
    # As 1 - erf of the negative, which does not cancel where it is small.
    return jax.lax.erfc((math.sqrt(0.5) - x) * math.sqrt(2 * math.pi)) / 2


def relu2(x: Array) -> Array:
    """max(x, 0)^2."""
    return jnp.square(jax.nn.relu(x))


_FUNCTIONS = {"laplace": laplace, "relu2": relu2}


def weights_alone(
    scores: Array, *, visible: Array | None, bias: Array | None, weights: str
) -> Array:
    """f(scores / N + bias), N the number of keys that the query sees; 0 for those that it does not.

    Args:
      scores: float32 [..., q, j].
      visible, bias: broadcastable to it.
      weights: which f, "laplace" or "relu2".
    """
    keys = scores.shape[-1]
    if visible is None:
        scores = scores / keys
    else:
        visible = jnp.broadcast_to(visible, (*visible.shape[:-1], keys))
        count = jnp.sum(visible, axis=-1, keepdims=True, dtype=scores.dtype)
        scores = scores / jnp.maximum(count, 1)
    if bias is not None:
        scores = scores + bias.astype(scores.dtype)
    found = _FUNCTIONS[weights](scores)
    return found if visible is None else jnp.where(visible, found, 0)
