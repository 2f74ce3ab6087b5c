"""The cross entropy of classes, on batches of each kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from spade_jax.config import AttentionConfig, ClassifierConfig, ConfigError, StackConfig
from spade_jax.mixers import Window
from spade_jax.objectives.base import batch_digest
from spade_jax.objectives.classification import Classification, ClassSums, logits_of
from spade_jax.objectives.classification_batch import PairBatch, ScalarBatch, TokenBatch
from spade_jax.objectives.config import LossConfig
from spade_jax.partition import MESH_AXES

INPUTS = np.array([[3, 4, 0], [5, 0, 0], [0, 0, 0]], np.int32)
LABELS, WEIGHTS = np.array([2, 0, 0], np.int32), np.array([1, 1, 0], np.int32)
LOGITS = np.array([[0.5, -1.0, 2.0], [1.0, 3.0, 0.0], [9.0, 0.0, 0.0]], np.float32)


class Recorder:
    """A model that keeps what it is called with."""

    def __call__(self, inputs, *, segment_ids, dropout_key):
        self.inputs, self.real, self.key = inputs, segment_ids, dropout_key
        return jnp.asarray(LOGITS)


def test_sums_are_those_of_the_rows_that_count():
    batch = TokenBatch(LABELS, WEIGHTS, INPUTS)
    model = Recorder()
    sums = Classification(TokenBatch)(model, batch, jax.random.key(3))
    log_shares = np.log(np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True))
    expected = -(log_shares[0, 2] + log_shares[1, 0])
    assert float(sums.minimised) == pytest.approx(expected, rel=1e-5)
    assert (int(sums.correct), int(sums.divisor)) == (1, 2)
    assert model.key is not None
    np.testing.assert_array_equal(model.real, INPUTS != 0)
    means = sums.means()
    assert float(means["loss"]) == pytest.approx(expected / 2, rel=1e-5)
    assert float(means["accuracy"]) == 0.5

    objective = Classification(TokenBatch, LossConfig(z_loss=0.1, label_smoothing=0.2))
    measured = objective.measure(model, batch)
    assert model.key is None
    np.testing.assert_allclose(measured.minimised, expected, rtol=1e-5)
    smoothed = objective(model, batch, None)
    log_z = np.log(np.exp(LOGITS[:2]).sum(1))
    assert float(smoothed.z_loss) == pytest.approx(0.1 * float((log_z**2).sum()), rel=1e-5)
    target = np.where(np.eye(3)[LABELS[:2]] > 0, 0.8, 0.1)
    divergence = (target * (np.log(target) - log_shares[:2])).sum()
    assert float(smoothed.loss) == pytest.approx(divergence, rel=1e-4)


def test_an_evaluation_weighs_each_example_the_same():
    parts = [ClassSums(*map(np.float32, v)) for v in ((3.0, 0, 2, 4), (1.0, 0, 1, 1))]
    metrics = Classification(TokenBatch).metrics(parts, 0.0)
    assert metrics == {"loss": 0.8, "accuracy": 0.6, "examples": 5}


def test_what_models_are_given():
    model = Recorder()
    logits_of(model, PairBatch(LABELS, WEIGHTS, INPUTS, INPUTS[::-1]))
    np.testing.assert_array_equal(model.inputs, np.stack([INPUTS, INPUTS[::-1]], axis=1))
    np.testing.assert_array_equal(model.real, model.inputs != 0)
    pixels = np.array([[0.5, 0.0, 0.0]] * 3, np.float32)
    logits_of(model, ScalarBatch(LABELS, WEIGHTS, pixels, np.array([2, 3, 0], np.int32)))
    np.testing.assert_array_equal(model.inputs, pixels)
    np.testing.assert_array_equal(model.real, [[1, 1, 0], [1, 1, 1], [0, 0, 0]])


def test_numbers_have_digests():
    """Of all of their bits: whole numbers of them would be equal."""
    pixels = np.array([[0.25, 0.5], [0.5, -0.25]], np.float32)
    digests = {
        int(batch_digest({"inputs": array})) for array in (pixels, pixels * 0.5, pixels[::-1])
    }
    assert len(digests) == 3
    assert int(batch_digest({"inputs": pixels})) == int(jax.jit(batch_digest)({"inputs": pixels}))


def config(**changes):
    settings = dict(
        vocab_size=12,
        classes=2,
        d_model=8,
        d_ff=8,
        encoder=StackConfig("window"),
        mixers={"window": Window(3)},
        attention=AttentionConfig(num_heads=2),
    )
    return ClassifierConfig(**settings | changes)


@pytest.mark.parametrize(
    ("batch", "changes", "sizes", "message"),
    [
        (ScalarBatch, {}, (1, 1), "model.vocab_size = 12: must be None, for inputs are numbers"),
        (TokenBatch, {"vocab_size": None}, (1, 1), "model.vocab_size = None: must be that of the"),
        (PairBatch, {}, (1, 1), 'model.pair = None: must be "concat" or "nli"'),
        (TokenBatch, {"pair": "nli"}, (1, 1), "model.pair = 'nli': must be None"),
        (TokenBatch, {}, (1, 4), "mesh.sequence = 4: must cut sequences of 12 tokens into shards"),
        (TokenBatch, {}, (4, 1), "mesh.tensor = 4: must divide model.attention.num_heads = 2"),
    ],
)
def test_what_does_not_fit(batch, changes, sizes, message):
    mesh = AbstractMesh((1, 1, *sizes), MESH_AXES)
    with pytest.raises(ConfigError) as error:
        # 11 is filled up to 12.
        Classification(batch).check(config(**changes), (11,), mesh)
    assert str(error.value).startswith(message)


def test_what_fits():
    mesh = AbstractMesh((1, 2, 2, 2), MESH_AXES)
    objective = Classification(PairBatch)
    objective.check(config(pair="concat"), (16,), mesh)
    assert objective.flops(config(pair="concat"), 5, (16,)) > 0
