"""The formula for operations against the compiler's own count."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from spade_jax.config import StackConfig
from spade_jax.mixers import Chunk, Full, Window
from spade_jax.models.encoder_decoder import EncoderDecoder
from spade_jax.models.flops import forward_flops, train_step_flops
from spade_jax.models.presets import preset

# Looped, for the compiler counts the body of a loop once.
CONFIG = preset("tiny", vocab_size=512, d_model=256, d_ff=512, scan_layers=False)


def compiled_flops(config, encoder_length, decoder_length):
    graph, state = nnx.split(nnx.eval_shape(lambda: EncoderDecoder(config, nnx.Rngs(0))))
    lengths = (encoder_length, decoder_length)
    tokens = [jax.ShapeDtypeStruct((1, length), jnp.int32) for length in lengths]
    compiled = jax.jit(lambda s, *t: nnx.merge(graph, s)(*t)).lower(state, *tokens).compile()
    return compiled.cost_analysis()["flops"]


def test_projections_and_feed_forward_are_what_the_compiler_counts():
    config = dataclasses.replace(CONFIG, encoder=StackConfig("3*window"))
    window, full = config.mixers["window"], config.mixers["full"]
    # Of attention the compiler has the pairs of whole blocks, too.
    block, width = window.radius + 1, config.attention.num_heads * config.head_dim
    hidden = 3 * 512 * (3 * block - window.keys(512, causal=False))
    hidden += 4 * 64 * (64 - full.keys(64, causal=True))
    computed = forward_flops(config, 512, 64) + 4 * width * hidden
    # It counts more than matmuls.
    assert 0.93 < computed / compiled_flops(config, 512, 64) < 1.0


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [1, 5, 12, 31])
def test_keys_are_those_that_are_seen(length, causal):
    behind = np.arange(length)[None] - np.arange(length)[:, None]
    seen = (behind <= 0) | (not causal)
    assert Full().keys(length, causal=causal) == pytest.approx(seen.sum() / length)
    chunk = np.arange(length) // 5
    in_chunk = seen & (chunk[None] == chunk[:, None])
    assert Chunk(5).keys(length, causal=causal) == pytest.approx(in_chunk.sum() / length)
    seen &= np.abs(behind) <= 7
    assert Window(7).keys(length, causal=causal) == pytest.approx(seen.sum() / length)


def test_spade_layer_adds_its_state_space_and_its_aggregation():
    config = dataclasses.replace(CONFIG, encoder=StackConfig("s4+window:concat"))
    plain = dataclasses.replace(CONFIG, encoder=StackConfig("window"))
    s4 = config.mixers["s4"]
    added = forward_flops(config, 512, 64) - forward_flops(plain, 512, 64)
    d, n, t = 256, s4.state_size, s4.chunk_length
    # By hand, for each token: t taps, and for each direction n written, n read, and n^2 carried
    # twice each t tokens.
    by_hand = 512 * (d * (2 * t + 2 * (2 * n + 2 * n + 2 * 2 * n * n // t)) + 2 * 2 * d * d)
    assert added == by_hand
    residual = dataclasses.replace(CONFIG, encoder=StackConfig("s4+window:residual"))
    assert forward_flops(residual, 512, 64) == forward_flops(config, 512, 64) - 512 * 2 * d * d
    both, one = (s4.flops(config, 512, causal=causal) for causal in (False, True))
    assert both == 2 * one - d * 2 * t
    # A sequence that is one block is taps alone.
    assert s4.flops(config, t, causal=False) == s4.flops(config, t, causal=True) == d * 2 * t


def test_an_update_is_three_forward_passes_of_each_sequence():
    assert train_step_flops(CONFIG, 5, 512, 64) == 15 * forward_flops(CONFIG, 512, 64)


def test_operations_are_linear_in_the_input_length():
    lengths = (4096, 8192, 16384)
    short, middle, long = (forward_flops(CONFIG, length, 64) for length in lengths)
    assert long - middle == 2 * (middle - short)
