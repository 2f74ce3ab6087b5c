"""T5's relative biases."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from spade_jax.config.model import ModelConfig
from spade_jax.elements import normal
from spade_jax.ops.attention.buckets import relative_position_buckets
from spade_jax.places import place


class RelativeBias(nnx.Module):
    """A learned bias for each head and bucket of relative positions (T5, arXiv 1910.10683)."""

    def __init__(self, config: ModelConfig, *, causal: bool, rngs: nnx.Rngs):
        attention = config.attention
        self.config, self.causal = attention, causal
        shape = (attention.num_buckets, attention.num_heads)
        axes = ("buckets", "heads")
        self.table = normal(rngs, shape, config.d_model**-0.5, axes, decays=False)

    @place("relative bias")
    def __call__(self, reach: int) -> jax.Array:
        """The bias of each relative position, from `reach` places before the query to `reach`
        behind it: float32 [h, 2 * reach + 1]."""
        buckets = relative_position_buckets(
            np.arange(-reach, reach + 1),
            bidirectional=not self.causal,
            num_buckets=self.config.num_buckets,
            max_distance=self.config.max_distance,
        )
        # One matmul with the buckets as rows of zeros and a one: a scatter-free gradient.
        one_hot = jax.nn.one_hot(buckets, self.config.num_buckets, dtype=jnp.float32)
        return jnp.einsum("rn,nh->hr", one_hot, self.table[...], precision="highest")
