import subprocess
import sys

import pytest
from flax import nnx

from spade_jax.models.build import builder
from spade_jax.models.encoder_decoder import EncoderDecoder
from spade_jax.models.presets import preset


def test_a_configuration_makes_a_model_of_its_kind():
    config = preset("tiny", vocab_size=24)
    model = nnx.eval_shape(lambda: builder(config)(nnx.Rngs(0)))
    assert isinstance(model, EncoderDecoder)
    assert model.config == config


def test_what_configures_no_model():
    with pytest.raises(TypeError, match=r"^model = dict: must be one of EncoderDecoderConfig"):
        builder({})


def test_models_and_objectives_need_neither_data_nor_checkpoints():
    """Without TensorFlow and Orbax they import, and a model runs."""
    code = """
import sys
absent = ("tensorflow", "seqio", "tensorflow_datasets", "grain", "orbax", "matplotlib")
sys.modules.update(dict.fromkeys(absent))
import jax.numpy as jnp
from flax import nnx
import spade_jax.models.flops, spade_jax.objectives.seq2seq
from spade_jax.models.build import builder
from spade_jax.models.presets import preset
config = preset("tiny", vocab_size=24, d_model=16, d_ff=16)
tokens = jnp.ones((1, 8), jnp.int32)
print(nnx.eval_shape(lambda: builder(config)(nnx.Rngs(0))(tokens, tokens)).shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "(1, 8, 24)\n"
