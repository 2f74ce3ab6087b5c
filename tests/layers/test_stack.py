import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from spade_jax.config import AttentionConfig, ConfigError, StackConfig
from spade_jax.layers.stack import Stack
from spade_jax.mixers import S4
from spade_jax.models.presets import preset

SMALL = {
    "vocab_size": 8,
    "d_model": 32,
    "d_ff": 8,
    "mixers": {"s4": S4(state_size=4, chunk_length=8)},
    "attention": AttentionConfig(num_heads=1, head_dim=4),
    "dropout_rate": 0.3,
}


@pytest.mark.parametrize("causal", [False, True], ids=["encoder", "decoder"])
def test_t5_drops_what_the_final_norm_gives(causal):
    """As Hugging Face's and T5X's T5 do."""
    x = jax.random.normal(jax.random.key(1), (4, 100, 32))

    def run(config):
        stack = StackConfig("full", relative_bias="none")
        module = Stack(config, stack, causal=causal, cross_attention=False, rngs=nnx.Rngs(0))
        return np.asarray(module(x, dropout_key=jax.random.key(2))[0])

    config = preset("tiny", "t5", **SMALL)
    dropped = run(config)
    # All other dropout is the same.
    norms = run(dataclasses.replace(config, final_dropout=False))
    kept = dropped != 0
    assert np.mean(kept[norms != 0]) == pytest.approx(0.7, abs=0.015)
    np.testing.assert_allclose(dropped[kept], norms[kept] / 0.7, rtol=1e-6)


def test_the_authors_drop_nothing_there():
    assert not preset("tiny", "msr", **SMALL).final_dropout


def test_layers_taken_apart_are_the_same():
    config = preset("tiny", **SMALL)
    stack = StackConfig("window, 2*(window, full), 2*window", relative_bias="none")
    module = Stack(config, stack, causal=True, cross_attention=False, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (1, 20, 32))
    run = jax.jit(lambda module, x: module(x)[0])
    before = run(module, x)
    module.take_apart()
    assert [group.repeat for group in module.groups] == [1] * 7
    after = run(module, x)
    np.testing.assert_allclose(after, before, atol=1e-6)


def test_dropout_rates_of_their_own():
    config = preset("tiny", **SMALL)
    assert (config.dropout_in("attention"), config.dropout_in("feed_forward")) == (0.3, 0.3)
    config = dataclasses.replace(config, attention_dropout_rate=0.0, feed_forward_dropout_rate=0.6)
    stack = StackConfig("window")
    module = Stack(config, stack, causal=True, cross_attention=False, rngs=nnx.Rngs(0))
    block = module.layers_0
    places = (block, block.local_mixer, block.feed_forward)
    assert [place.dropout_rate for place in places] == [0.3, 0.0, 0.6]


def test_dropout_after_a_norm_that_is_not_there():
    with pytest.raises(ConfigError, match=r"model.final_dropout = True: must be False where"):
        preset("tiny", "msr", final_dropout=True)
