"""MEGA's gated attention against the authors' code, and what its settings refuse."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_data import GRADIENT_TOLERANCE, OUTPUT_TOLERANCE, gradient_error, output_error
from mega_golden import MegaLayer, context, in_pieces, loss_and_gradients, tokens
from stacks import model

from spade_jax.config import ConfigError, from_dict
from spade_jax.config.mixer import MixerConfig
from spade_jax.mixers import EMA, S4, Mega
from spade_jax.mixers.mega.bias import RotaryBias

ATTENTION = [
    "laplace_causal_full_simple",
    "laplace_chunk_simple_pad_post",
    "laplace_full_rotary_pad",
    "relu2_full_simple",
    "softmax_causal_chunk_rotary",
    "softmax_causal_full_trunc",
    "softmax_chunk_simple_pad",
    "softmax_full_rotary_pad_post",
    "softmax_full_simple",
]
LAYERS = [
    "batchnorm_post",
    "batchnorm_pre",
    "causal_layernorm_pre",
    "layernorm_post",
    "layernorm_pre",
    "rmsnorm_pre",
    "scalenorm_post",
    "scalenorm_pre",
]
NAMES = [f"mega_attention_{name}" for name in ATTENTION] + [f"mega_layer_{name}" for name in LAYERS]


@pytest.mark.parametrize("name", NAMES)
def test_layer_is_that_of_the_authors(name):
    """In value, in every gradient, and in what batch norms keep."""
    layer = MegaLayer(name)
    golden, block = layer.golden, layer.block()
    y, gradients, statistics = loss_and_gradients(block, golden)
    assert output_error(y, golden["out/y"], tokens(golden)) < OUTPUT_TOLERANCE
    expected = layer.ours("grad/") | {"x": golden["grad/x"]}
    assert gradients.keys() == expected.keys()
    for own, gradient in gradients.items():
        if np.abs(expected[own]).max() < 1e-12:  # What a batch norm takes away again.
            assert np.abs(gradient).max() < 1e-5, own
        else:
            assert gradient_error(gradient, expected[own]) < GRADIENT_TOLERANCE, own
    kept = layer.statistics()
    assert statistics.keys() == kept.keys()
    for own, statistic in statistics.items():
        assert output_error(statistic, kept[own]) < OUTPUT_TOLERANCE, own


def test_pieces_across_chunks_are_the_steps_of_the_authors():
    layer = MegaLayer("mega_attention_softmax_causal_chunk_rotary")
    assert layer.config["chunk_size"] == 6
    y = in_pieces(layer.block(), layer.golden["in/x"], (4, 1, 9, 4))
    assert output_error(y, layer.golden["out/y_step"]) < OUTPUT_TOLERANCE


def test_steps_forget_what_the_kernel_does():
    """The authors' steps never cut the kernel, and differ from their whole sequences."""
    layer = MegaLayer("mega_attention_softmax_causal_full_trunc")
    golden, whole = layer.golden, layer.golden["out/y"]
    y = in_pieces(layer.block(), golden["in/x"], (3, 17))
    assert output_error(y, whole) < OUTPUT_TOLERANCE
    assert output_error(golden["out/y_step"], whole) > 0.01


def test_rotary_bias_is_that_of_turned_vectors():
    bias = RotaryBias(6, rngs=nnx.Rngs(0))
    alpha, beta = (np.asarray(v[...], np.float64) for v in (bias.alpha, bias.beta))

    def turned(x, position):
        angles = position * 10_000.0 ** (-np.arange(3) / 3)
        a, b = x[:3], x[3:]
        return np.concatenate(
            [a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)]
        )

    expected = [turned(alpha, 11) @ turned(beta, 11 + j) for j in range(-9, 10)]
    np.testing.assert_allclose(bias(9)[0], expected, rtol=1e-5, atol=1e-9)


def test_the_gate_decides_what_goes_on_of_the_residual():
    """Open, it takes all of it away, and closed it leaves it to the bit."""
    layer = MegaLayer("mega_attention_softmax_full_simple")
    block, x = layer.block(), jnp.asarray(layer.golden["in/x"])
    run = nnx.jit(lambda block, x: block(x, context(tokens(layer.golden)))[0])
    gate = block.local_mixer.residual_gate
    gate.kernel[...] = jnp.zeros_like(gate.kernel[...])
    gate.bias[...] = jnp.full_like(gate.bias[...], -200.0)
    np.testing.assert_array_equal(run(block, x), x)
    gate.bias[...] = jnp.full_like(gate.bias[...], 200.0)
    candidate = run(block, x)
    assert np.abs(candidate - x).max() > 0.1
    gate.bias[...] = jnp.zeros_like(gate.bias[...])
    np.testing.assert_allclose(run(block, x), (x + candidate) / 2, atol=1e-6)


def test_dropout_is_the_mixers_own_and_not_the_blocks():
    """The block, which drops nearly all of what other mixers give, drops nothing of this one's."""
    layer = MegaLayer("mega_attention_softmax_full_simple")
    golden, block = layer.golden, layer.block()
    block.dropout_rate, block.local_mixer.hidden_dropout_rate = 0.999, 0.0
    seen, key = context(tokens(golden)), jax.random.key(0)

    def run(block):
        return nnx.jit(lambda block, x: block(x, seen, dropout_key=key)[0])(block, golden["in/x"])

    assert output_error(run(block), golden["out/y"]) < OUTPUT_TOLERANCE
    block.local_mixer.hidden_dropout_rate = 0.5
    assert output_error(run(block), golden["out/y"]) > 0.01


def test_average_may_be_a_state_space():
    settings = {
        "kind": "mega",
        "average": {"kind": "s4", "state_size": 8, "chunk_length": 4},
    }
    mixer = from_dict(MixerConfig, settings)
    assert mixer == Mega(average=S4(state_size=8, chunk_length=4))
    assert from_dict(MixerConfig, dataclasses.asdict(mixer)) == mixer


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"query_dim": 7, "bias": "rotary"},
            r'mega.query_dim = 7: must be even with bias "rotary"',
        ),
        ({"average": Mega()}, r"mega.average = Mega\(.*: must be a mixer of kind ema or s4"),
        ({"chunk_size": 1}, r"mega.chunk_size = 1: must be at least 2, or None for all"),
        ({"weights": "laplac"}, r"mega.weights = 'laplac': .*did you mean 'laplace'"),
        ({"hidden_dropout_rate": 1.0}, r"mega.hidden_dropout_rate = 1.0: must be below 1"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ConfigError, match=message):
        Mega(**settings)
    with pytest.raises(ConfigError, match=r"ema.max_kernel_length = 1: must be at least 2"):
        EMA(max_kernel_length=1)


def test_another_implementation_is_named_in_all_parts():
    mixer = Mega(average=S4(convolution="fft")).run_by("xla")
    assert (mixer.implementation, mixer.average.implementation) == ("xla", None)
    assert Mega().run_by("xla").average == EMA(implementation="xla")


def test_meshes_and_implementations_that_cannot_be():
    config = model("mega")

    def shards(axis):
        return 2

    with pytest.raises(ConfigError, match=r"mesh.sequence = 2: must cut .*mega.chunk_size = 64"):
        Mega(chunk_size=64, average=EMA(chunk_length=4)).check_mesh(
            config, 200, causal=False, shards=shards
        )
    with pytest.raises(ConfigError, match=r"mesh.sequence = 2: must be 1 with .*chunk_size = None"):
        Mega(chunk_size=None, average=EMA(chunk_length=4)).check_mesh(
            config, 200, causal=True, shards=shards
        )
    mixer = Mega(weights="relu2", implementation="pallas_tpu")
    with pytest.raises(ConfigError, match=r"mega.implementation = 'pallas_tpu': full attention"):
        mixer.check_implementation(config)
