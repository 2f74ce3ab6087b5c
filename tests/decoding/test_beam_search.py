from functools import partial

import jax
import numpy as np
import pytest
from toy import END, Toy, padded

from spade_jax.config import ConfigError
from spade_jax.decoding.beam_search import beam_search
from spade_jax.decoding.config import SamplingConfig
from spade_jax.decoding.sampling import sample


def search(toy, beams, alpha, length=None):
    run = partial(
        beam_search,
        toy.step,
        batch=toy.batch,
        beams=beams,
        length=length or toy.length,
        end_id=END,
        vocab_size=toy.v,
        alpha=alpha,
    )
    tokens, scores = jax.jit(run)(toy.cache(beams))
    return np.asarray(tokens), np.asarray(scores)


def best_of_all(toy, row, alpha):
    """All ended sequences with their scores, best first."""
    scored = [
        (toy.log_probability(row, tokens) / ((5 + len(tokens)) / 6) ** alpha, tokens)
        for tokens in toy.all_ended()
    ]
    return sorted(scored, reverse=True)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.5])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_beam_wide_enough_finds_the_best_of_all_sequences(alpha, seed):
    """27 others at the third place, and as many as there are tokens: nothing is cut off."""
    toy = Toy(vocab_size=3, length=5, batch=2, seed=seed)
    # Tokens beyond the third have no probability; they are there to allow a beam of 30.
    narrow_step = toy.step

    def step(tokens, cache):
        logits, cache = narrow_step(tokens, cache)
        return jax.numpy.pad(logits, ((0, 0), (0, 27)), constant_values=-1e9), cache

    run = partial(beam_search, step, batch=2, beams=30, length=5, end_id=END, vocab_size=30)
    tokens, scores = jax.jit(partial(run, alpha=alpha))(toy.cache(30))
    for row in range(2):
        expected = best_of_all(toy, row, alpha)[:20]
        for (score, sequence), found, found_score in zip(expected, tokens[row], scores[row]):
            assert found.tolist() == padded(sequence, 5)
            assert found_score == pytest.approx(score, rel=1e-5)


def plain_beam_search(toy, row, beams, alpha):
    """The algorithm in Python, without stopping early: k go on, the best k of all ended count."""
    going, ended = [((), 0.0)], []
    for n in range(1, toy.length + 1):
        extended = [
            ((*tokens, token), toy.log_probability(row, (*tokens, token)))
            for tokens, _ in going
            for token in range(toy.v)
        ]
        extended = sorted(extended, key=lambda pair: -pair[1])[: 2 * beams]
        penalty = ((5 + n) / 6) ** alpha
        ended += [(p / penalty, tokens) for tokens, p in extended if tokens[-1] == END]
        going = [(tokens, p) for tokens, p in extended if tokens[-1] != END][:beams]
    return sorted(ended, reverse=True)[:beams]


@pytest.mark.parametrize("beams", [1, 2, 4])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_stopping_early_and_picking_rows_of_the_cache_change_nothing(beams, alpha):
    toy = Toy(vocab_size=5, length=6, batch=8, seed=3)
    tokens, scores = search(toy, beams, alpha)
    compared = 0
    for row in range(toy.batch):
        expected = plain_beam_search(toy, row, beams, alpha)
        if not expected:  # See the test of rows in which nothing ends.
            continue
        compared += 1
        for place, (score, sequence) in enumerate(expected):
            assert tokens[row, place].tolist() == padded(sequence, toy.length)
            assert scores[row, place] == pytest.approx(score, rel=1e-5)
        assert (scores[row, len(expected) :] == np.float32(-1e30)).all()
    assert compared >= 4


def test_it_stops_when_nothing_can_improve():
    """The end has nearly all probability: after one token, a beam of 1 needs no second step."""
    toy = Toy(vocab_size=4, length=6, batch=3, seed=4)
    toy.table[:, :, END] += 20.0
    steps = []

    def counted(tokens, cache):
        jax.debug.callback(lambda i: steps.append(int(i)), cache.shared)
        return toy.step(tokens, cache)

    run = partial(beam_search, counted, batch=3, beams=1, length=6, end_id=END, vocab_size=4)
    tokens, _ = jax.block_until_ready(jax.jit(run)(toy.cache()))
    jax.effects_barrier()
    assert steps == [0]
    assert tokens[:, 0].tolist() == [[END, 0, 0, 0, 0, 0]] * 3


def test_rows_in_which_nothing_ends_return_what_goes_on():
    toy = Toy(vocab_size=4, length=3, batch=2, seed=5)
    toy.table[0, :, END] = -np.inf
    tokens, scores = search(toy, beams=2, alpha=0.6)
    assert END not in tokens[0]
    for found, score in zip(tokens[0], scores[0]):
        expected = toy.log_probability(0, found) / (8 / 6) ** 0.6
        assert score == pytest.approx(expected, rel=1e-5)
    assert END in tokens[1, 0]


def test_one_beam_without_penalty_is_greedy_where_greedy_ends_first():
    toy = Toy(vocab_size=5, length=6, batch=6, seed=6)
    toy.table[:, :, END] += 1.0
    greedy, log_probability = jax.jit(
        partial(sample, toy.step, rows=6, length=6, end_id=END, config=SamplingConfig())
    )(toy.cache())
    tokens, scores = search(toy, beams=1, alpha=0.0)
    same = [row for row in range(6) if (greedy[row] == tokens[row, 0]).all()]
    assert len(same) >= 3
    for row in same:
        assert scores[row, 0] == pytest.approx(float(log_probability[row]), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beams": 0}, r"decoding\.beams = 0: must be at least 1"),
        ({"beams": 5}, r"decoding\.beams = 5: must be at most 4, the size of the vocabulary"),
        ({"length": 0}, r"decoding\.length = 0: must be at least 1"),
        ({"alpha": -0.5}, r"decoding\.length_penalty = -0\.5"),
    ],
)
def test_what_cannot_be_is_rejected(changes, message):
    toy = Toy(vocab_size=4, length=3, batch=1, seed=0)
    settings = {"beams": 2, "length": 3, "alpha": 0.6, **changes}
    with pytest.raises(ConfigError, match=message):
        beam_search(toy.step, toy.cache(2), batch=1, end_id=END, vocab_size=4, **settings)
