"""Small stacks that the conformance suite runs over: every mixer, alone and with others."""

import jax
import jax.numpy as jnp
import moving_average  # noqa: F401  # For its name in patterns.
import numpy as np
from flax import nnx

from spade_jax.config import AttentionConfig, EncoderDecoderConfig, StackConfig
from spade_jax.layers.stack import Stack
from spade_jax.mixers import EMA, S4, Chunk, Mega, Window

WIDTH = 16
_CUT = EMA(state_size=4, convolution="reference", max_kernel_length=6)
PATTERNS = (
    "2*window",
    "full",
    "s4",
    "s4d",
    "moving_average",
    "mega",
    "s4+window:concat, 2*narrow",
    "s4+window:residual, narrow",
    "chunk",
    "ema",
    "full_mega",
    "moving_average+full:add",
    "s4+moving_average:stack",
    "2*(2*moving_average:no_ff, window)",
)


def model(pattern, **changes):
    return EncoderDecoderConfig(
        **{
            "vocab_size": 24,
            "d_model": WIDTH,
            "d_ff": 24,
            "encoder": StackConfig(pattern),
            "decoder": StackConfig(pattern),
            "mixers": {
                "s4": S4(state_size=8, chunk_length=4),
                "s4d": S4(init="diag-lin", state_size=8, chunk_length=4),
                "window": Window(5),
                "narrow": Window(2),
                "chunk": Chunk(8),
                "ema": EMA(state_size=4, chunk_length=4),
                "mega": Mega(6, 20, 8, "laplace", average=EMA(state_size=4, chunk_length=8)),
                "full_mega": Mega(6, 20, None, bias="rotary", average=_CUT),
            },
            "attention": AttentionConfig(num_heads=2, num_buckets=8, max_distance=16),
        }
        | changes
    )


def stack(pattern, causal, **changes):
    """A stack, split into its graph and its parameters."""
    config = model(pattern, **changes)
    module = Stack(config, config.encoder, causal=causal, cross_attention=False, rngs=nnx.Rngs(0))
    graph, state = nnx.split(module)
    return graph, jax.tree.map(_without_zeros, state)


def _without_zeros(value):
    """What begins as nothing, or next to it, would hide all that it multiplies."""
    if np.sqrt(np.mean(np.square(value))) > 0.1:
        return value
    random = np.random.default_rng(2).normal(size=value.shape) * WIDTH**-0.5
    return jnp.asarray(random, value.dtype)


def inputs(rows, length, seed=0):
    values = np.random.default_rng(seed).normal(size=(rows, length, WIDTH))
    return jnp.asarray(values, jnp.float32)
