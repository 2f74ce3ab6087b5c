from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from toy import END, Toy, padded

from spade_jax.config import ConfigError
from spade_jax.decoding.config import SamplingConfig
from spade_jax.decoding.sampling import sample, sampling_logits


def test_greedy_takes_the_likeliest_each_time():
    toy = Toy(vocab_size=5, length=6, batch=16, seed=0)
    run = partial(sample, toy.step, rows=16, length=6, end_id=END, config=SamplingConfig())
    tokens, log_probability = jax.jit(run)(toy.cache())
    lengths = set()
    for row in range(16):
        prefix, expected = 0, []
        while len(expected) < 6 and END not in expected:
            expected.append(int(toy.table[row, prefix].argmax()))
            prefix = prefix * toy.v + 1 + expected[-1]
        assert tokens[row].tolist() == padded(expected, 6)
        assert log_probability[row] == pytest.approx(toy.log_probability(row, expected), rel=1e-5)
        lengths.add(len(expected))
    assert len(lengths) > 1


def test_it_stops_when_all_rows_have_ended():
    toy = Toy(vocab_size=4, length=6, batch=2, seed=1)
    toy.table[0, :, END] += 50.0  # after the first token
    toy.table[1, :, END] -= 50.0
    toy.table[1, 1 + toy.v :, END] += 100.0  # after the third
    steps = []

    def counted(tokens, cache):
        jax.debug.callback(lambda i: steps.append(int(i)), cache.shared)
        return toy.step(tokens, cache)

    run = partial(sample, counted, rows=2, length=6, end_id=END, config=SamplingConfig())
    tokens, _ = jax.block_until_ready(jax.jit(run)(toy.cache()))
    jax.effects_barrier()
    assert sorted(steps) == [0, 1, 2]
    assert (tokens == END).sum(axis=1).tolist() == [1, 1]


LOGITS = np.log(np.array([0.30, 0.05, 0.20, 0.25, 0.15, 0.05]))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (SamplingConfig(temperature=1.0), [0.30, 0.05, 0.20, 0.25, 0.15, 0.05]),
        (SamplingConfig(temperature=1.0, top_k=2), [0.30, 0, 0, 0.25, 0, 0]),
        # 0.30 + 0.25 are less than 0.6, with 0.20 they are more.
        (SamplingConfig(temperature=1.0, top_p=0.6), [0.30, 0, 0.20, 0.25, 0, 0]),
        # Of three, 0.75 in all: the first two hold 0.55 / 0.75 = 0.733.
        (SamplingConfig(temperature=1.0, top_k=3, top_p=0.7), [0.30, 0, 0, 0.25, 0, 0]),
        (SamplingConfig(temperature=1.0, top_p=1e-6), [1, 0, 0, 0, 0, 0]),
        (SamplingConfig(temperature=0.5), [0.09, 0.0025, 0.04, 0.0625, 0.0225, 0.0025]),
        (SamplingConfig(temperature=1.0, top_k=99), [0.30, 0.05, 0.20, 0.25, 0.15, 0.05]),
    ],
)
def test_draws_follow_the_distribution(config, expected):
    """By a chi-square test of 20,000 draws, and no draw of what has been cut off."""
    expected = np.array(expected) / np.sum(expected)
    given = jax.nn.softmax(sampling_logits(jnp.asarray(LOGITS, jnp.float32), config))
    np.testing.assert_allclose(given, expected, atol=1e-6)

    n = 20_000

    def step(tokens, cache):
        return jnp.broadcast_to(jnp.asarray(LOGITS, jnp.float32), (n, 6)), cache

    run = partial(sample, step, (), rows=n, length=1, end_id=END, config=config)
    tokens, log_probability = jax.jit(lambda key: run(key=key))(jax.random.key(0))
    counts = np.bincount(tokens[:, 0], minlength=6)
    possible = expected > 0
    assert counts[~possible].sum() == 0
    if possible.sum() > 1:
        result = scipy.stats.chisquare(counts[possible], n * expected[possible])
        assert result.pvalue > 1e-3
    # Scores are the model's own, whatever the draw was made from.
    np.testing.assert_allclose(log_probability, LOGITS[tokens[:, 0]], rtol=1e-5)


def test_ties_at_the_border_keep_the_lower_ids():
    logits = sampling_logits(jnp.zeros((1, 4)), SamplingConfig(temperature=1.0, top_k=2))
    assert np.isfinite(logits).tolist() == [[True, True, False, False]]


def test_each_place_and_row_draws_anew():
    def step(tokens, cache):
        return jnp.zeros((8, 100)), cache

    config = SamplingConfig(temperature=1.0)
    run = partial(sample, step, (), rows=8, length=20, end_id=-1, config=config)
    tokens, _ = jax.jit(lambda key: run(key=key))(jax.random.key(1))
    assert len(np.unique(tokens)) > 60  # of 160 draws of 100 tokens


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SamplingConfig(temperature=-1.0), r"decoding\.temperature = -1\.0"),
        (lambda: SamplingConfig(top_k=0), r"decoding\.top_k = 0"),
        (lambda: SamplingConfig(top_p=0.0), r"decoding\.top_p = 0\.0"),
        (lambda: run_toy(length=0), r"decoding\.length = 0: must be at least 1"),
        (lambda: run_toy(config=SamplingConfig(temperature=1.0)), "must be 0 without a random key"),
    ],
)
def test_what_cannot_be_is_rejected(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def run_toy(**changes):
    toy = Toy(vocab_size=4, length=3, batch=1, seed=0)
    settings = {"length": 3, "config": SamplingConfig(), **changes}
    return sample(toy.step, toy.cache(), rows=1, end_id=END, **settings)
