import jax
import numpy as np
import pytest
from flax import nnx

from spade_jax.config import ModelConfig, StackConfig
from spade_jax.interop import names
from spade_jax.models.build import builder
from spade_jax.models.presets import preset
from spade_jax.trees import paths


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    encoder = StackConfig("s4+window:concat, 2*(window, full), 2*window", relative_bias="per_layer")
    return preset("tiny", vocab_size=40, encoder=encoder, decoder=StackConfig("full, 2*full"))


@pytest.fixture(scope="module")
def params(config):
    return nnx.to_pure_dict(nnx.state(builder(config)(nnx.Rngs(0)), nnx.Param))


def test_layers_come_one_by_one_from_the_bottom(config, params):
    weights = names.by_layer(params, config)
    encoder, group = params["encoder"], "mixer_norm"
    rows = [
        encoder["layers_0"][group]["scale"],
        encoder["layers_1"]["layer_0"][group]["scale"][0],
        encoder["layers_1"]["layer_1"][group]["scale"][0],
        encoder["layers_1"]["layer_0"][group]["scale"][1],
        encoder["layers_1"]["layer_1"][group]["scale"][1],
        encoder["layers_2"][group]["scale"][0],
        encoder["layers_2"][group]["scale"][1],
    ]
    kernels = {f"encoder/layers/{i}/local_mixer/query/kernel" for i in range(7)}
    assert kernels <= weights.keys()
    assert "encoder/layers/7/mixer_norm/scale" not in weights
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(weights[f"encoder/layers/{i}/mixer_norm/scale"], row)
    np.testing.assert_array_equal(
        weights["encoder/layers/4/local_mixer/query/kernel"],
        encoder["layers_1"]["layer_1"]["local_mixer"]["query"]["kernel"][1],
    )
    np.testing.assert_array_equal(weights["embedding"], params["embedding"])


def test_there_and_back_to_the_bit(config, params):
    weights = names.by_layer(params, config)
    again = paths(names.by_group(weights, config))
    assert again.keys() == paths(params).keys()
    jax.tree.map(np.testing.assert_array_equal, again, paths(params))
    wanted = {name: (array.shape, array.dtype) for name, array in weights.items()}
    assert {n: (s.shape, s.dtype) for n, s in names.shapes(config).items()} == wanted


def test_a_parameter_that_is_missing_is_named(config, params):
    weights = names.by_layer(params, config)
    del weights["encoder/layers/3/mixer_norm/scale"]
    with pytest.raises(KeyError, match="encoder/layers/3/mixer_norm/scale"):
        names.by_group(weights, config)
