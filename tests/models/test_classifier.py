"""What a classifier makes of padding, pairs, numbers and places, and what its settings refuse."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from spade_jax.config import AttentionConfig, ClassifierConfig, ConfigError, StackConfig, from_dict
from spade_jax.config.model import ModelConfig
from spade_jax.elements import train
from spade_jax.mixers import S4, Full, Window
from spade_jax.models.build import builder
from spade_jax.models.flops import classifier_flops, stack_flops

CONFIG = ClassifierConfig(
    vocab_size=12,
    classes=3,
    d_model=8,
    d_ff=16,
    encoder=StackConfig("s4+window:concat, full"),
    mixers={"s4": S4(state_size=4, chunk_length=4), "window": Window(2), "full": Full()},
    attention=AttentionConfig(num_heads=2, num_buckets=4, max_distance=8),
    head_width=6,
)
TOKENS = np.random.default_rng(0).integers(1, 12, (3, 10), dtype=np.int32)


def make(**changes):
    config = dataclasses.replace(CONFIG, **changes)
    return nnx.jit(lambda: builder(config)(nnx.Rngs(0)))()


@nnx.jit
def logits(model, inputs, segment_ids=None, dropout_key=None):
    return model(inputs, segment_ids=segment_ids, dropout_key=dropout_key)


@nnx.jit
def encoded(model, inputs, segment_ids=None):
    return model.encode(inputs, segment_ids=segment_ids)


@pytest.fixture(scope="module")
def model():
    return make()


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_padding_changes_nothing(model, pooling):
    graph, state = nnx.split(model)
    model = nnx.merge(graph, state)
    model.config = dataclasses.replace(CONFIG, pooling=pooling)
    padded = np.concatenate([TOKENS, np.full((3, 6), 7, np.int32)], axis=1)
    real = np.repeat(np.arange(16)[None] < 10, 3, axis=0).astype(np.int32)
    real[2] = 0  # A row that fills up a batch.
    found = logits(model, padded, real)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found[:2], logits(model, TOKENS)[:2], atol=2e-6)
    assert np.isfinite(found).all()


def test_what_stands_for_a_sequence(model):
    outputs = np.random.default_rng(1).normal(size=(2, 5, 8)).astype(np.float32)
    real = np.array([[1, 1, 1, 0, 0], [0, 0, 0, 0, 0]], np.int32)
    for pooling, expected in (
        ("mean", outputs[0, :3].mean(0)),
        ("first", outputs[0, 0]),
        ("last", outputs[0, 2]),
    ):
        model.config = dataclasses.replace(CONFIG, pooling=pooling)
        pooled = model.pool(outputs.astype(jnp.bfloat16), real)
        assert pooled.dtype == jnp.float32
        np.testing.assert_allclose(pooled[0], expected, atol=0.03)
        assert np.isfinite(pooled[1]).all()
        np.testing.assert_allclose(model.pool(outputs, real)[0], expected, atol=1e-6)
    model.config = CONFIG


def test_features_of_pairs(model):
    a, b = (np.random.default_rng(i).normal(size=(2, 8)).astype(np.float32) for i in range(2))
    pooled = np.stack([a, b], axis=1)
    for pair, parts in (("concat", [b, a]), ("nli", [a, b, a * b, a - b])):
        model.config = dataclasses.replace(CONFIG, pair=pair)
        features = model._features(pooled)
        assert features.shape[1] == model.config.features
        np.testing.assert_array_equal(features, np.concatenate(parts, axis=1))
    model.config = CONFIG


def test_each_of_a_pair_is_encoded_by_itself():
    model = make(pair="nli", head_width=None, encoder=StackConfig("window"))
    pairs = np.stack([TOKENS, TOKENS[::-1]], axis=1)
    real = np.ones_like(pairs)
    real[:, 1, 4:] = 0
    pooled = nnx.jit(lambda model: model._pooled(pairs, real, None))(model)
    for number in range(2):
        own, its = pairs[:, number], real[:, number]
        expected = model.pool(encoded(model, own, its), its)
        np.testing.assert_allclose(pooled[:, number], expected, atol=1e-6)
    assert logits(model, pairs, real).shape == (3, 3)


def test_numbers_are_scaled_and_shifted():
    model = make(vocab_size=None, encoder=StackConfig("window"))
    x = np.random.default_rng(2).normal(size=(2, 7)).astype(np.float32)
    weight, bias = model.embedding.weight[...], model.embedding.bias[...]
    expected = nnx.jit(lambda model, x: model.encoder(x)[0])(model, x[..., None] * weight + bias)
    np.testing.assert_allclose(encoded(model, x), expected, atol=1e-6)
    # A black pixel is no padding.
    black = np.zeros((1, 7), np.float32)
    black[0, 0] = 1
    real = (np.arange(7)[None] < 4).astype(np.int32)
    assert not np.allclose(logits(model, black), logits(model, black, real), atol=1e-4)


def test_causal_layers_see_nothing_behind():
    model = make(causal=True, pooling="last", encoder=StackConfig("s4"))
    changed = TOKENS.copy()
    changed[:, 6:] = 1
    before, after = (encoded(model, tokens) for tokens in (TOKENS, changed))
    np.testing.assert_array_equal(before[:, :6], after[:, :6])
    assert not np.allclose(before[:, 6:], after[:, 6:])


def test_dropout_and_a_batch_without_anything_real():
    model = make(dropout_rate=0.5, norm="batch", encoder=StackConfig("window"))
    keys = [jax.random.key(i) for i in range(2)]
    one, other = (logits(model, TOKENS, None, key) for key in keys)
    assert not np.allclose(one, other)
    np.testing.assert_array_equal(one, logits(model, TOKENS, None, keys[0]))
    train(model)
    assert np.isfinite(logits(model, TOKENS, np.zeros_like(TOKENS))).all()


def test_operations_are_those_of_the_layers_and_the_head():
    layers = stack_flops(CONFIG, CONFIG.encoder, 10, causal=False)
    assert classifier_flops(CONFIG, 10) == layers + 2 * (8 * 6 + 6 * 3)
    pairs = dataclasses.replace(CONFIG, pair="nli", head_width=None)
    assert classifier_flops(pairs, 10) == 2 * layers + 2 * 4 * 8 * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": 1}, "model.classes = 1: must be at least 2"),
        (
            {"causal": True, "pooling": "first"},
            'model.pooling = \'first\': must be "mean" or "last" with model.causal',
        ),
        ({"pair": "both"}, "model.pair = 'both': must be one of concat, nli"),
        ({"head_width": 0}, "model.head_width = 0: must be at least 1"),
    ],
)
def test_settings_that_cannot_be(changes, message):
    with pytest.raises(ConfigError) as error:
        dataclasses.replace(CONFIG, **changes)
    assert str(error.value).startswith(message)


def test_a_classifier_is_read_back():
    settings = dataclasses.asdict(CONFIG)
    assert settings["kind"] == "classifier"
    assert from_dict(ModelConfig, settings) == CONFIG
