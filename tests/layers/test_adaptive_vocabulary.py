"""A vocabulary in bands is the authors', with their numbers in it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_data import GRADIENT_TOLERANCE, OUTPUT_TOLERANCE, Golden, gradient_error, output_error

from spade_jax.config import ConfigError
from spade_jax.config.adaptive import AdaptiveConfig
from spade_jax.elements import dropout
from spade_jax.layers.adaptive_vocabulary import AdaptiveVocabulary

CONFIG = AdaptiveConfig((20, 40), factor=2)


def vocabulary_of(golden):
    module = AdaptiveVocabulary(CONFIG, 60, 32, nnx.Rngs(0))
    for i in range(3):
        name, band = f"param/decoder.embed_tokens.embeddings.{i}", getattr(module, f"band_{i}")
        band.embedding[...] = jnp.asarray(golden[f"{name}.0.weight"])
        band.projection[...] = jnp.asarray(golden[f"{name}.1.weight"].T)
    module.tails[...] = jnp.asarray(golden["param/decoder.adaptive_softmax.head.class_proj.weight"])
    return module


def test_the_authors_numbers():
    golden = Golden("spade_lm_adaptive")
    graph, state = nnx.split(vocabulary_of(golden))
    features, valid = jnp.asarray(golden["out/features"]), golden["in/valid"]

    @jax.jit
    def run(state):
        module = nnx.merge(graph, state)
        return module.embed(golden["in/tokens"], jnp.float32), module.log_probabilities(features)

    @jax.jit
    @jax.value_and_grad
    def loss(state):
        scores = nnx.merge(graph, state).scores(features, golden["in/targets"])
        losses = jnp.where(valid != 0, scores.log_z - scores.target, 0.0)
        return losses.sum() / valid.sum()

    embedded, log_p = run(nnx.to_pure_dict(state))
    embedded = golden.config["embed_scale"] * embedded
    assert output_error(embedded, golden["out/inner_states"][0], valid) < OUTPUT_TOLERANCE
    assert output_error(log_p, golden["out/log_probs"], valid) < OUTPUT_TOLERANCE
    value, gradient = loss(nnx.to_pure_dict(state))
    assert output_error(value, golden["out/loss"]) < OUTPUT_TOLERANCE
    expected = golden["grad/decoder.adaptive_softmax.head.class_proj.weight"]
    assert gradient_error(gradient["tails"], expected) < GRADIENT_TOLERANCE


def test_targets_that_fairseq_s_loss_drops_count():
    """It takes the number of the padding for padding within each tail, too."""
    module = vocabulary_of(Golden("spade_lm_adaptive"))
    states = jax.random.normal(jax.random.key(0), (2, 23, 32))
    targets = np.resize([20 + 1, 40 + 1], (2, 23))
    scores = nnx.jit(AdaptiveVocabulary.scores)(module, states, targets)
    log_p = nnx.jit(AdaptiveVocabulary.log_probabilities)(module, states)
    expected = -np.take_along_axis(np.asarray(log_p), targets[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(scores.log_z - scores.target, expected, rtol=1e-5)


def test_dropout_falls_on_states_and_once_more_in_tails():
    module = AdaptiveVocabulary(AdaptiveConfig((3,), factor=2, dropout_rate=0.5), 7, 8, nnx.Rngs(0))
    states, key = jax.random.normal(jax.random.key(1), (2, 5, 8)), jax.random.key(2)
    targets = np.full((2, 5), 4)
    keys = jax.random.split(key, 2)
    head_states = dropout(states, 0.5, keys[0])
    narrow = dropout(head_states @ module.band_1.projection[...].T, 0.5, keys[1])
    head = jnp.concatenate([module.band_0.embedding[...], module.tails[...]])
    expected = (
        jax.nn.log_softmax(head_states @ head.T)[..., 3]
        + jax.nn.log_softmax(narrow @ module.band_1.embedding[...].T)[..., 1]
    )
    scores = nnx.jit(AdaptiveVocabulary.scores)(module, states, targets, key)
    np.testing.assert_allclose(scores.target - scores.log_z, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cutoffs": ()}, r"model.adaptive.cutoffs = \(\): must be ascending, and at least one"),
        ({"cutoffs": (20, 20)}, r"model.adaptive.cutoffs = \(20, 20\): must be ascending"),
        ({"cutoffs": (0, 20)}, r"model.adaptive.cutoffs\[0\] = 0: must be at least 1"),
        ({"cutoffs": (20, 60)}, r"cutoffs = \(20, 60\): must be below model.vocab_size = 60"),
        ({"cutoffs": (20, 40), "factor": 8}, r"model.adaptive.factor = 8: must leave the last"),
    ],
)
def test_bands_that_cannot_be(settings, message):
    with pytest.raises(ConfigError, match=message):
        AdaptiveConfig(**settings).check_model(60, 32)
