"""The feed-forward block by its formulas."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import nnx

from spade_jax.config import EncoderDecoderConfig, StackConfig
from spade_jax.layers.feed_forward import FeedForward
from spade_jax.models.flops import stack_flops


def silu(x):
    return x / (1 + np.exp(-x))


FUNCTIONS = {
    "gelu": lambda x: x * (1 + scipy.special.erf(x / 2**0.5)) / 2,
    "silu": silu,
    "gated-silu": silu,
    "relu": lambda x: np.maximum(x, 0),
}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_block_is_its_formula(kind):
    stack = StackConfig("full")
    config = EncoderDecoderConfig(
        vocab_size=8,
        d_model=12,
        d_ff=20,
        encoder=stack,
        decoder=stack,
        feed_forward=kind,
        feed_forward_bias=True,
    )
    block = FeedForward(config, rngs=nnx.Rngs(0))
    block.expand.bias[...] += 0.5
    x = np.random.default_rng(0).normal(size=(2, 3, 12)).astype(np.float32)
    hidden = FUNCTIONS[kind](x @ np.asarray(block.expand.kernel[...]) + 0.5)
    if kind.startswith("gated"):
        hidden = hidden * (x @ np.asarray(block.gate.kernel[...]))
    expected = hidden @ np.asarray(block.contract.kernel[...])
    np.testing.assert_allclose(block(jnp.asarray(x)), expected, atol=2e-5)
    matmuls = 3 if kind.startswith("gated") else 2
    without = stack_flops(config, StackConfig("full:no_ff"), 7, causal=False)
    added = stack_flops(config, stack, 7, causal=False) - without
    assert added == 7 * matmuls * 2 * 12 * 20
