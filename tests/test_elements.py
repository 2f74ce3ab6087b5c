"""Norms are their formulas; what a norm measures over a batch lasts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from spade_jax.config import AttentionConfig, ConfigError, StackConfig
from spade_jax.elements import Norm, statistics, train
from spade_jax.layers.stack import Stack
from spade_jax.mixers import Window
from spade_jax.models.presets import preset

EPSILON, WIDTH = 1e-3, 6
CONFIG = preset(
    "tiny",
    vocab_size=8,
    d_model=WIDTH,
    d_ff=8,
    mixers={"window": Window(3)},
    attention=AttentionConfig(num_heads=1, head_dim=4, num_buckets=8, max_distance=16),
    norm="batch",
    norm_epsilon=EPSILON,
)


def norm_of(kind):
    """With scales and biases that are not those of the beginning."""
    norm = Norm(dataclasses.replace(CONFIG, norm=kind))
    rng = np.random.default_rng(1)
    for parameter in (norm.scale, norm.bias):
        if parameter is not None:
            parameter[...] = jnp.asarray(rng.normal(size=parameter.shape), jnp.float32)
    return norm


def tokens(seed=0, rows=3, length=7):
    return np.random.default_rng(seed).normal(2.0, 3.0, (rows, length, WIDTH)).astype(np.float32)


@pytest.mark.parametrize("kind", ["rms", "layer", "scale"])
def test_norms_of_a_token(kind):
    norm, x = norm_of(kind), tokens()
    assert norm.scale.shape == (() if kind == "scale" else (WIDTH,))
    expected = x - x.mean(-1, keepdims=True) if kind == "layer" else x
    expected = expected / np.sqrt(np.square(expected).mean(-1, keepdims=True) + EPSILON)
    expected = expected * np.asarray(norm.scale[...])
    if kind == "layer":
        expected = expected + np.asarray(norm.bias[...])
    np.testing.assert_allclose(norm(x), expected, rtol=1e-5, atol=1e-5)


def test_batch_norm_is_its_formula_with_padding_left_out():
    norm, running = norm_of("batch"), (np.zeros(WIDTH), np.ones(WIDTH))
    scale, bias = np.asarray(norm.scale[...]), np.asarray(norm.bias[...])
    segments = (np.arange(7)[None] < np.asarray([[7], [4], [1]])).astype(np.int32)
    train(norm)
    for seed in range(2):
        x = tokens(seed)
        seen = x[segments > 0].astype(np.float64)
        mean, variance = seen.mean(0), seen.var(0)
        expected = (x - mean) / np.sqrt(variance + EPSILON) * scale + bias
        np.testing.assert_allclose(norm(x, segments), expected, rtol=1e-4, atol=1e-4)
        measured = mean, seen.var(0, ddof=1)
        running = tuple(0.9 * old + 0.1 * new for old, new in zip(running, measured))
        for found, wanted in zip((norm.mean, norm.variance), running):
            np.testing.assert_allclose(found[...], wanted, rtol=1e-5)
    norm.set_attributes(training=False)
    expected = (x - running[0]) / np.sqrt(running[1] + EPSILON) * scale + bias
    np.testing.assert_allclose(norm(x, segments), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(norm.mean[...], running[0], rtol=1e-5)


def test_batch_norm_in_bfloat16_measures_in_float32():
    norm = norm_of("batch")
    train(norm)
    y = norm(jnp.asarray(tokens(), jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    assert norm.mean[...].dtype == norm.variance[...].dtype == jnp.float32


def test_scanned_and_rematerialised_layers_measure_what_looped_ones_do():
    def run(**changes):
        config = dataclasses.replace(CONFIG, embedding_norm=True, **changes)
        stack = Stack(
            config,
            StackConfig("2*(window:no_ff, window:no_ff)"),
            causal=False,
            cross_attention=False,
            rngs=nnx.Rngs(0),
        )
        train(stack)
        graph, state = nnx.split(stack)

        def total(state, x):
            stack = nnx.merge(graph, state)
            y, _ = stack(x)
            return jnp.sum(jnp.sin(y)), (y, statistics(stack))

        return jax.jit(jax.grad(total, argnums=1, has_aux=True))(nnx.to_pure_dict(state), tokens())

    looped, scanned = run(scan_layers=False), run(scan_layers=True, remat="dots")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), scanned, looped)
    found = looped[1][1]["layers_0"]["layer_1"]["mixer_norm"]["mean"]
    assert found.shape == (2, WIDTH)
    assert np.abs(np.asarray(found)).min() > 0


def test_no_such_norm():
    with pytest.raises(ConfigError, match=r"model.norm = 'group': must be one of rms, layer, sca"):
        dataclasses.replace(CONFIG, norm="group")
