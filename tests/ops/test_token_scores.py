"""Scores of targets by parts are those of all logits, in value and by every gradient."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spade_jax.ops import token_scores
from spade_jax.ops.token_scores import scores_of_logits

ROWS, LENGTH, WIDTH, VOCAB = 3, 5, 8, 40


def inputs(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    states = jnp.asarray(rng.normal(size=(ROWS, LENGTH, WIDTH)), dtype)
    matrix = jnp.asarray(rng.normal(size=(VOCAB, WIDTH)), jnp.float32)
    return states, matrix, jnp.asarray(rng.integers(0, VOCAB, (ROWS, LENGTH)))


def scores_and_gradients(function, states, matrix, targets):
    """By a loss in which every token weighs differently, and each score of it."""
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(3, ROWS, LENGTH)))

    def total(states, matrix):
        scores = function(states, matrix, targets)
        used = jnp.stack([scores.log_z, scores.target, 0.1 * scores.total])
        return jnp.sum(used * weights), scores

    compute = jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))
    return compute(states, matrix)


def from_all_logits(states, matrix, targets):
    logits = jnp.einsum("btd,vd->btv", states, matrix, precision="highest")
    return scores_of_logits(logits, targets)


@pytest.mark.parametrize("logits", [10**6, 7 * VOCAB, VOCAB])
def test_parts_are_the_whole(logits, monkeypatch):
    monkeypatch.setattr(token_scores, "LOGITS", logits)
    (dx, dw), scores = scores_and_gradients(token_scores.token_scores, *inputs())
    (dx_all, dw_all), expected = scores_and_gradients(from_all_logits, *inputs())
    for one, other in zip(scores[:3], expected[:3]):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(scores.best, expected.best)
    np.testing.assert_allclose(dx, dx_all, atol=1e-5)
    np.testing.assert_allclose(dw, dw_all, atol=1e-5)


def test_the_best_is_the_first_of_the_largest():
    logits = jnp.asarray([[1.0, 3.0, 3.0, 2.0]])
    for target in range(4):
        scores = scores_of_logits(logits, jnp.asarray([target]))
        assert bool(scores.best[0]) == (target == 1)
        assert scores.target[0] == logits[0, target]
    assert scores.vocabulary_size == 4


def test_no_more_logits_are_in_memory_than_a_part(monkeypatch):
    monkeypatch.setattr(token_scores, "LOGITS", 5 * VOCAB)
    states, matrix, targets = inputs()

    def loss(states, matrix):
        scores = token_scores.token_scores(states, matrix, targets)
        return jnp.sum(scores.log_z - scores.target)

    text = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(states, matrix).as_text()
    assert f"tensor<5x{VOCAB}xf32>" in text
    assert f"x{LENGTH}x{VOCAB}x" not in text
    assert f"tensor<{ROWS * LENGTH}x{VOCAB}x" not in text


def test_bfloat16_multiplies_in_bfloat16_alone():
    states, matrix, targets = inputs(jnp.bfloat16)

    def loss(states, matrix):
        scores = token_scores.token_scores(states, matrix, targets)
        return jnp.sum(scores.log_z - scores.target)

    gradient = jax.grad(loss, argnums=(0, 1))
    found = gradient(states, matrix)
    exact = gradient(states.astype(jnp.float32), matrix)
    for one, other in zip(found, exact):
        error = jnp.abs(one.astype(jnp.float32) - other).max() / jnp.abs(other).max()
        assert error < 1e-2
    text = jax.jit(gradient).lower(states, matrix).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert len(products) == 3
    assert all(line.count("xbf16>") == 2 for line in products), products


def test_eight_devices_give_what_one_gives(on_eight_devices):
    report = on_eight_devices(Path(__file__).with_name("eight_devices_token_scores.py"))
    assert len(report) == 3
    for mesh in report:
        assert mesh["error"] < 1e-5, mesh
        assert mesh["gradient_error"] < 1e-5, mesh
        assert mesh["best"], mesh
