import jax.numpy as jnp
import numpy as np
import pytest

from spade_jax.objectives.config import LossConfig
from spade_jax.objectives.tokens import TokenSums, token_losses, token_metrics
from spade_jax.ops.token_scores import scores_of_logits

VOCAB = 16


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_token_losses_against_the_definition(smoothing):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 3, VOCAB)).astype(np.float32) * 3
    targets = rng.integers(0, VOCAB, (2, 3))
    wanted = np.full((2, 3, VOCAB), smoothing / (VOCAB - 1))
    np.put_along_axis(wanted, targets[..., None], 1 - smoothing, axis=-1)
    log_z = np.log(np.exp(logits.astype(np.float64)).sum(-1))
    entropy = -(wanted * np.log(np.maximum(wanted, 1e-300))).sum(-1)
    expected = -(wanted * (logits - log_z[..., None])).sum(-1) - entropy
    scores = scores_of_logits(jnp.asarray(logits), jnp.asarray(targets))
    loss, z_loss = token_losses(scores, LossConfig(1e-2, smoothing))
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(z_loss, 1e-2 * log_z**2, rtol=1e-5)


def test_metrics_are_of_all_tokens_and_of_the_bytes_that_are_known():
    parts = [TokenSums(*map(np.array, sums)) for sums in ((6.0, 0.0, 1, 3), (2.0, 0.0, 1, 1))]
    metrics = {"loss": 2.0, "accuracy": 0.5, "tokens": 4}
    assert token_metrics(parts, None) == metrics
    bits = {"bits_per_byte": pytest.approx(8 / np.log(2) / 5)}
    assert token_metrics(parts, 5) == metrics | bits
    assert token_metrics([], 0) == {"loss": 0, "accuracy": 0, "bits_per_byte": 0, "tokens": 0}
