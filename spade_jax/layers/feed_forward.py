"""The feed-forward block."""

import jax
from flax import nnx

from spade_jax.config.model import ModelConfig
from spade_jax.elements import Linear, dropout
from spade_jax.places import place

_ACTIVATIONS = {
    "gated-gelu": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gated-silu": jax.nn.silu,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}


class FeedForward(nnx.Module):
    """W2 f(W1 x), or gated (arXiv 2002.05202) W2 (f(W1 x) * W3 x)."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        d, inner, bias = config.d_model, config.d_ff, config.feed_forward_bias
        self.dropout_rate = config.dropout_in("feed_forward")
        self.activation = config.feed_forward
        self.expand = Linear(("embed", "mlp"), d, inner, bias=bias, rngs=rngs)
        gated = config.gated_feed_forward
        self.gate = Linear(("embed", "mlp"), d, inner, bias=bias, rngs=rngs) if gated else None
        self.contract = Linear(("mlp", "embed"), inner, d, bias=bias, rngs=rngs)

    @place("feed-forward")
    def __call__(self, x: jax.Array, *, dropout_key: jax.Array | None = None) -> jax.Array:
        """[b, l, d] -> [b, l, d]."""
        hidden = _ACTIVATIONS[self.activation](self.expand(x))
        if self.gate is not None:
            hidden = hidden * self.gate(x)
        return self.contract(dropout(hidden, self.dropout_rate, dropout_key))
