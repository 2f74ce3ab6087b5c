"""Heads: the projections that self- and cross-attention have in common."""

import jax
import jax.numpy as jnp
from flax import nnx

from spade_jax.config.model import ModelConfig
from spade_jax.elements import Linear
from spade_jax.places import place


class Heads(nnx.Module):
    """Queries, keys, values and the output, of heads of `head_dim`, without biases."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        d, attention = config.d_model, config.attention
        self.heads, self.head_dim = attention.num_heads, config.head_dim
        self.dropout_rate = config.dropout_in("attention")
        self.implementation = attention.implementation
        # T5 leaves scores unscaled and its queries small.
        small = self.head_dim**-0.5
        self.scale = small if attention.scale_queries else 1.0
        width = self.heads * self.head_dim
        query_std = d**-0.5 * (1.0 if attention.scale_queries else small)
        self.query = Linear(("embed", "heads"), d, width, std=query_std, rngs=rngs)
        self.key = Linear(("embed", "heads"), d, width, rngs=rngs)
        self.value = Linear(("embed", "heads"), d, width, rngs=rngs)
        self.output = Linear(("heads", "embed"), width, d, rngs=rngs)

    @place("attention projections")
    def queries(self, x: jax.Array) -> jax.Array:
        """[b, l, d] -> [b, l, h, k], scaled."""
        return self._split(self.query(x) * jnp.asarray(self.scale, x.dtype))

    @place("attention projections")
    def keys_and_values(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[b, l, d] -> [b, l, h, k] each."""
        return self._split(self.key(x)), self._split(self.value(x))

    @place("attention projections")
    def merge(self, y: jax.Array) -> jax.Array:
        """[b, l, h, k] -> [b, l, d]."""
        return self.output(y.reshape(*y.shape[:2], -1))

    def _split(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:2], self.heads, self.head_dim)
