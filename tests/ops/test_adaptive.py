"""Scores by bands are those of all log-probabilities, in value and by every gradient."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spade_jax.objectives.config import LossConfig
from spade_jax.objectives.tokens import token_losses
from spade_jax.ops import adaptive
from spade_jax.ops.adaptive import Tail, adaptive_log_probabilities, adaptive_scores

ROWS, LENGTH, WIDTH = 3, 7, 8
CUTOFFS, VOCAB = (5, 12), 31
TARGETS = {
    "mixed": np.random.default_rng(2).integers(0, VOCAB, (ROWS, LENGTH)),
    "borders": np.resize([0, 4, 5, 6, 11, 12, 13, 30], (ROWS, LENGTH)),
    "the last band's": np.random.default_rng(3).integers(12, VOCAB, (ROWS, LENGTH)),
    "the first band's": np.random.default_rng(4).integers(0, 5, (ROWS, LENGTH)),
}


def inputs(dtype=jnp.float32):
    """States, the head's matrix and the tails; the states of tails are inputs of their own."""
    rng = np.random.default_rng(0)

    def array(*shape, dtype=dtype):
        return jnp.asarray(rng.normal(size=shape), dtype)

    tails = [
        Tail(array(ROWS, LENGTH, 4), array(7, 4, dtype=jnp.float32)),
        Tail(array(ROWS, LENGTH, 2), array(19, 2, dtype=jnp.float32)),
    ]
    return array(ROWS, LENGTH, WIDTH), array(7, WIDTH, dtype=jnp.float32), tails


def by_bands(states, head, tails, targets):
    scores = adaptive_scores(states, head, tails, targets)
    return scores.target - scores.log_z, scores


def from_all(states, head, tails, targets):
    log_p = adaptive_log_probabilities(states, head, tails)
    return jnp.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0], log_p


def weighted(function):
    """The gradients of a loss in which every token weighs differently, and the result."""
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(ROWS, LENGTH)))

    def total(arguments, targets):
        found = function(*arguments, targets)
        return jnp.sum(found[0] * weights), found

    return jax.jit(jax.grad(total, has_aux=True))


@pytest.fixture(scope="module")
def compiled():
    with pytest.MonkeyPatch.context() as patch:
        # Several blocks, of which the last one is not full.
        patch.setattr(adaptive, "_TOKENS", 4)
        run = weighted(by_bands)
        run(inputs(), TARGETS["mixed"])
        yield run, weighted(from_all)


@pytest.mark.parametrize("targets", TARGETS)
def test_targets_have_their_log_probabilities(compiled, targets):
    by_band, of_all = (run(inputs(), TARGETS[targets]) for run in compiled)
    gradients, (log_p, scores) = by_band
    expected_gradients, (expected, _) = of_all
    np.testing.assert_allclose(log_p, expected, rtol=1e-5, atol=1e-5)
    assert scores.vocabulary_size == VOCAB
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradients, expected_gradients
    )


def test_log_probabilities_are_those_of_a_distribution():
    states, head, tails = inputs()
    log_p = adaptive_log_probabilities(states, head, tails)
    np.testing.assert_allclose(jnp.exp(log_p).sum(-1), 1.0, rtol=1e-5)
    head_p = jax.nn.softmax(states @ head.T)
    np.testing.assert_allclose(jnp.exp(log_p)[..., 5:12].sum(-1), head_p[..., 5], rtol=1e-4)
    np.testing.assert_allclose(jnp.exp(log_p)[..., 12:].sum(-1), head_p[..., 6], rtol=1e-4)


def test_the_best_is_a_greedy_choice_of_the_head_and_then_of_a_tail(compiled):
    states, head, tails = inputs()
    choice = np.argmax(states @ head.T, axis=-1)
    for number, (start, tail) in enumerate(zip(CUTOFFS, tails)):
        inner = np.argmax(tail.states_btw @ tail.matrix_vw.T, axis=-1)
        choice = np.where(choice == 5 + number, 100 + start + inner, choice)
    choice = choice % 100
    for targets in (choice, (choice + 1) % VOCAB):
        _, (_, scores) = compiled[0]((states, head, tails), targets)
        np.testing.assert_array_equal(scores.best, targets == choice)


def test_a_band_without_targets_is_not_computed(compiled):
    states, head, tails = inputs()
    poisoned = [tail._replace(matrix_vw=jnp.full_like(tail.matrix_vw, jnp.nan)) for tail in tails]
    targets = TARGETS["the first band's"]
    gradients, (log_p, _) = compiled[0]((states, head, poisoned), targets)
    _, (expected, _) = compiled[1]((states, head, tails), targets)
    np.testing.assert_allclose(log_p, expected, rtol=1e-5, atol=1e-5)
    for tail in gradients[2]:
        assert not np.asarray(tail.states_btw).any()
        assert not np.asarray(tail.matrix_vw).any()


def test_no_more_logits_of_a_tail_are_in_memory_than_a_block(monkeypatch):
    monkeypatch.setattr(adaptive, "LOGITS", 3 * 19)
    text = weighted(by_bands).lower(inputs(), TARGETS["mixed"]).as_text()
    assert "tensor<3x19xf32>" in text
    assert f"tensor<{ROWS * LENGTH}x19x" not in text
    assert f"tensor<{ROWS}x{LENGTH}x19x" not in text


def test_bfloat16_multiplies_in_bfloat16_alone():
    run = weighted(by_bands)
    found, _ = run(inputs(jnp.bfloat16), TARGETS["mixed"])
    exact = jax.tree.map(lambda a: a.astype(jnp.float32), inputs(jnp.bfloat16))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(run(exact, TARGETS["mixed"])[0])):
        error = jnp.abs(one.astype(jnp.float32) - other).max() / jnp.abs(other).max()
        assert error < 2e-2
    text = run.lower(inputs(jnp.bfloat16), TARGETS["mixed"]).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert all(line.count("xbf16>") == 2 for line in products), products


def test_losses_of_scores(compiled):
    _, (_, scores) = compiled[0](inputs(), TARGETS["mixed"])
    loss, z_loss = token_losses(scores, LossConfig(z_loss=0.5))
    np.testing.assert_allclose(loss, scores.log_z - scores.target)
    np.testing.assert_allclose(z_loss, 0.5 * scores.log_z**2)


def test_eight_devices_give_what_one_gives(on_eight_devices):
    report = on_eight_devices(Path(__file__).with_name("eight_devices_adaptive.py"))
    assert len(report) == 2
    for mesh in report:
        assert mesh["error"] < 1e-5, mesh
        assert mesh["gradient_error"] < 1e-5, mesh
        assert mesh["best"], mesh
