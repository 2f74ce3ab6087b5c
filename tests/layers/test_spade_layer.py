"""The SPADE layer against the authors' language-model layers."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from golden_data import OUTPUT_TOLERANCE, Golden, output_error
from official_weights import assign, lm_layer, lm_layer_config

from spade_jax.config import LayerSpec
from spade_jax.layers.attention import RelativeBias
from spade_jax.layers.spade import SpadeLayer


def golden_layer(golden: Golden) -> SpadeLayer:
    combine = golden.config["s4_local_combine"]
    spec = LayerSpec(global_mixer="s4", combine=combine) if combine else LayerSpec()
    layer = SpadeLayer(
        lm_layer_config(golden.config),
        spec,
        causal=True,
        cross_attention=False,
        own_bias=combine is not None,
        rngs=nnx.Rngs(0),
    )
    return assign(layer, lm_layer(golden.group("param/")))


@pytest.mark.parametrize("combine", ["concat", "add", "stack"])
@pytest.mark.parametrize("placement", ["pre", "post"])
def test_layer_with_global_mixer_matches_the_authors(combine, placement):
    golden = Golden(f"spade_layer0_{combine}_{placement}")
    layer, valid = golden_layer(golden), golden["in/valid"]
    y = nnx.jit(lambda layer, x: layer(x, segment_ids=jnp.asarray(valid), biases={}))(
        layer, golden["in/x"]
    )
    assert output_error(y, golden["out/y"], valid) < OUTPUT_TOLERANCE


@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("shared_bias", [True, False])
def test_plain_layer_matches_the_authors(placement, shared_bias):
    golden = Golden(f"spade_layer1_{placement}")
    layer, valid = golden_layer(golden), golden["in/valid"]
    biases = {}
    if shared_bias:
        bias = RelativeBias(lm_layer_config(golden.config), causal=True, rngs=nnx.Rngs(0))
        bias = assign(bias, {"table": golden["in/layer0_relative_attention_bias"]})
        biases = {"window": bias("window", 18)}
    y = layer(golden["in/x"], segment_ids=jnp.asarray(valid), biases=biases)
    expected = golden["out/y" if shared_bias else "out/y_without_position_bias"]
    assert output_error(y, expected, valid) < OUTPUT_TOLERANCE


def test_dropout_is_off_without_a_key_and_keeps_the_mean_with_one():
    from spade_jax.elements import dropout

    x = jnp.ones((200, 500))
    assert dropout(x, 0.3, None) is x
    dropped = dropout(x, 0.3, jax.random.key(0))
    assert abs(float((dropped == 0).mean()) - 0.3) < 0.01
    assert abs(float(dropped.mean()) - 1.0) < 0.01
    assert set(map(float, jnp.unique(dropped))) == {0.0, float(jnp.float32(1.0) / jnp.float32(0.7))}
