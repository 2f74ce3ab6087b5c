"""The SPADE layer against the authors' language-model layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from authors import EMBEDDING, arguments, assign, below, shapes_of
from flax import nnx
from golden_data import OUTPUT_TOLERANCE, Golden, output_error

from spade_jax.config import AttentionConfig, EncoderDecoderConfig, ModelConfig, StackConfig
from spade_jax.config.pattern import LayerSpec
from spade_jax.interop.authors import model_config, to_ours
from spade_jax.layers.block import Block
from spade_jax.mixers import S4, Window
from spade_jax.mixers.attention.relative_bias import RelativeBias
from spade_jax.mixers.base import Context

_GLOBAL = {"global_mixer", "global_norm", "aggregate"}


def golden_layer(golden: Golden, *, alone: bool = False) -> tuple[Block, ModelConfig, dict]:
    """A layer, its model, and the parameters of a language model that is this layer.

    alone: a layer without a global mixer, and without the table of biases.
    """
    layer = golden.group("param/")
    weights = {f"decoder.layers.0.{name}": array for name, array in layer.items()}
    weights[EMBEDDING] = np.zeros((3, golden.config["embed_dim"]), np.float32)
    settings = arguments(golden.config)
    if alone:
        whole = Golden("spade_layer0_concat_pre").group("param/")
        whole = {f"decoder.layers.0.{name}": array for name, array in whole.items()}
        settings |= {"decoder_layers": 2, "s4_every_n_layers": 2, "s4_local_combine": "concat"}
        weights = whole | {n.replace("layers.0", "layers.1"): a for n, a in weights.items()}
    config = model_config(settings, shapes_of(weights))
    params = to_ours(weights, config).params
    *_, spec = config.decoder.layer_specs
    block = Block(
        config, config.decoder, spec, causal=True, cross_attention=False, rngs=nnx.Rngs(0)
    )
    return assign(block, below(f"decoder/layers/{int(alone)}/", params)), config, params


def context(valid, biases=None):
    return Context(jnp.asarray(valid), jnp.arange(valid.shape[1])[None], 0, biases or {})


def biases_of(config, table):
    bias = assign(RelativeBias(config, causal=True, rngs=nnx.Rngs(0)), {"table": table})
    reach = config.mixers["window"].radius
    return {reach: bias(reach)}


@pytest.mark.parametrize("combine", ["concat", "add", "stack"])
@pytest.mark.parametrize("placement", ["pre", "post"])
def test_layer_with_global_mixer_matches_the_authors(combine, placement):
    golden = Golden(f"spade_layer0_{combine}_{placement}")
    layer, config, params = golden_layer(golden)
    valid = golden["in/valid"]
    biases = biases_of(config, params["decoder/relative_bias/table"])
    y = nnx.jit(lambda layer, x: layer(x, context(valid, biases))[0])(layer, golden["in/x"])
    assert output_error(y, golden["out/y"], valid) < OUTPUT_TOLERANCE


@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("shared_bias", [True, False])
def test_plain_layer_matches_the_authors(placement, shared_bias):
    golden = Golden(f"spade_layer1_{placement}")
    layer, config, _ = golden_layer(golden, alone=True)
    valid = golden["in/valid"]
    table = golden["in/layer0_relative_attention_bias"]
    biases = biases_of(config, table) if shared_bias else {}
    y, _ = layer(golden["in/x"], context(valid, biases))
    expected = golden["out/y" if shared_bias else "out/y_without_position_bias"]
    assert output_error(y, expected, valid) < OUTPUT_TOLERANCE


def test_a_residual_layer_begins_as_its_local_mixer_and_learns_to_use_the_global_one():
    """To the bit; the matrix that is zero has a gradient, and then what it multiplies has one."""
    stack = StackConfig("s4+window:residual")
    config = EncoderDecoderConfig(
        vocab_size=8,
        d_model=16,
        d_ff=24,
        encoder=stack,
        decoder=StackConfig("full"),
        mixers={"s4": S4(state_size=8, chunk_length=4), "window": Window(5)},
        attention=AttentionConfig(num_heads=2, num_buckets=8, max_distance=16),
    )
    spec, plain = stack.groups[0].layers[0], LayerSpec(("window",))
    rngs = nnx.Rngs(0)
    layer = Block(config, stack, spec, causal=False, cross_attention=False, rngs=rngs)
    assert layer.local_norm is None
    assert layer.aggregate.bias is None
    alone = Block(config, stack, plain, causal=False, cross_attention=False, rngs=rngs)
    nnx.update(alone, nnx.state(layer, lambda path, _: not _GLOBAL & set(path)))
    x, weights = np.random.default_rng(0).normal(size=(2, 2, 9, 16)).astype(np.float32)
    own = context(np.ones((2, 9), np.int32), {5: jnp.zeros((2, 11))})

    def loss(layer):
        y, _ = layer(x, own)
        return jnp.sum(y * weights), y

    (_, y), gradients = nnx.jit(nnx.value_and_grad(loss, has_aux=True))(layer)
    (_, expected), _ = nnx.jit(nnx.value_and_grad(loss, has_aux=True))(alone)
    np.testing.assert_array_equal(y, expected)
    assert np.abs(gradients["aggregate"]["kernel"][...]).max() > 0.01
    assert np.all(gradients["global_mixer"]["c"][...] == 0)
    layer.aggregate.kernel[...] -= 0.1 * gradients["aggregate"]["kernel"][...]
    _, gradients = nnx.jit(nnx.value_and_grad(loss, has_aux=True))(layer)
    for one in (gradients["global_mixer"]["c"], gradients["global_norm"]["scale"]):
        assert np.abs(one[...]).max() > 1e-4


def test_dropout_is_off_without_a_key_and_keeps_the_mean_with_one():
    from spade_jax.elements import dropout

    x = jnp.ones((200, 500))
    assert dropout(x, 0.3, None) is x
    dropped = dropout(x, 0.3, jax.random.key(0))
    assert abs(float((dropped == 0).mean()) - 0.3) < 0.01
    assert abs(float(dropped.mean()) - 1.0) < 0.01
    assert set(map(float, jnp.unique(dropped))) == {0.0, float(jnp.float32(1.0) / jnp.float32(0.7))}
