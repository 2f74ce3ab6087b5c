"""Span corruption against its definition."""

import itertools

import numpy as np
import pytest
import seqio

from spade_jax.data._tensorflow import tf
from spade_jax.data.config import DenoiserConfig
from spade_jax.data.span_corruption import (
    concatenate,
    noise_mask,
    random_partition,
    replace_spans,
    span_corruption,
)

VOCABULARY = 1000
T5 = DenoiserConfig(0.15, 3.0)


def draw(fn, count: int, seed: int = 0) -> np.ndarray:
    """`count` independent draws of `fn(seed)`, stacked."""
    seeds = np.random.default_rng(seed).integers(0, 2**31, (count, 2))
    dataset = tf.data.Dataset.from_tensor_slices(seeds.astype(np.int32)).map(fn).batch(count)
    return next(iter(dataset)).numpy()


def runs(mask: np.ndarray) -> list[tuple[bool, int]]:
    return [(bool(kind), len(list(group))) for kind, group in itertools.groupby(mask)]


def corrupted(tokens: np.ndarray, denoiser: DenoiserConfig, seed: int = 0) -> dict:
    """One corrupted segment."""
    dataset = tf.data.Dataset.from_tensors({"targets": tf.constant(tokens, tf.int32)})
    with seqio.utils.map_seed_manager(seed):
        dataset = span_corruption(dataset, denoiser, VOCABULARY)
    return next(dataset.as_numpy_iterator())


def joined(example: dict) -> list[int]:
    """Puts the spans of the targets back into the inputs; sentinels must count down from v-1."""
    is_sentinel = example["targets"] > VOCABULARY - 101
    starts = np.flatnonzero(is_sentinel)
    spans = np.split(example["targets"], starts)
    assert spans[0].size == 0  # Targets begin with a sentinel.
    expected = VOCABULARY - 1 - np.arange(len(starts))
    np.testing.assert_array_equal(example["targets"][starts], expected)
    np.testing.assert_array_equal(example["inputs"][example["inputs"] > VOCABULARY - 101], expected)
    tokens: list[int] = []
    for token in example["inputs"]:
        index = VOCABULARY - 1 - token
        tokens += spans[index + 1][1:].tolist() if 0 <= index < 100 else [int(token)]
    return tokens


@pytest.mark.parametrize(
    "denoiser", [T5, DenoiserConfig(0.5, 3.0), DenoiserConfig(0.15, 8.0), DenoiserConfig(0.3, 1.0)]
)
@pytest.mark.parametrize("length", [2, 3, 7, 30, 110, 568])
def test_mask_has_exactly_the_noise_and_spans_of_the_formula(denoiser, length):
    noise, spans = denoiser.count_noise(length)
    for mask in draw(lambda seed: noise_mask(length, denoiser, seed), 20):
        kinds = [kind for kind, _ in runs(mask)]
        assert kinds == [False, True] * spans
        assert mask.sum() == noise


def test_t5_segment_has_85_masked_tokens_in_28_spans():
    mask = draw(lambda seed: noise_mask(568, T5, seed), 1)[0]
    assert mask.sum() == 85
    assert len(runs(mask)) == 2 * 28


def test_partitions_are_equally_probable():
    draws = draw(lambda seed: random_partition(6, 3, seed), 5000)
    kinds, counts = np.unique(draws, axis=0, return_counts=True)
    assert len(kinds) == 10  # Five borders, two of which are chosen.
    assert (kinds.sum(axis=1) == 6).all()
    assert (kinds >= 1).all()
    chi_squared = ((counts - 500) ** 2 / 500).sum()
    assert chi_squared < 27.9  # The 0.999 quantile at 9 degrees of freedom.


def test_masks_are_equally_probable():
    denoiser = DenoiserConfig(0.4, 2.0)
    assert denoiser.count_noise(10) == (4, 2)
    masks, counts = np.unique(
        draw(lambda seed: noise_mask(10, denoiser, seed), 6000), axis=0, return_counts=True
    )
    assert len(masks) == 15  # Six kept tokens in two runs: 5 ways; four masked ones: 3 ways.
    chi_squared = ((counts - 400) ** 2 / 400).sum()
    assert chi_squared < 36.1  # The 0.999 quantile at 14 degrees of freedom.


def test_masking_is_even_over_positions_away_from_the_ends():
    mean = draw(lambda seed: noise_mask(568, T5, seed), 4000)[:, 40:-40].mean(axis=0)
    # The last token is always masked, which leaves a little less for the others.
    assert 0.145 < mean.mean() < 85 / 568
    assert np.abs(mean - mean.mean()).max() < 5 * np.sqrt(0.15 * 0.85 / 4000)


def test_runs_of_both_kinds_have_the_right_mean_and_vary():
    masks = draw(lambda seed: noise_mask(568, T5, seed), 200)
    lengths = np.array([[n for _, n in runs(mask)] for mask in masks])
    np.testing.assert_allclose(lengths[:, 1::2].mean(), 85 / 28)
    np.testing.assert_allclose(lengths[:, 0::2].mean(), 483 / 28)
    assert lengths[:, 1::2].min() == 1
    assert lengths[:, 1::2].max() > 10


def test_replace_spans():
    tokens = tf.constant([10, 11, 12, 13, 14, 15], tf.int32)
    mask = tf.constant([True, True, False, True, False, False])
    np.testing.assert_array_equal(replace_spans(tokens, mask, 99), [99, 12, 98, 14, 15])
    np.testing.assert_array_equal(replace_spans(tokens, ~mask, 99), [10, 11, 99, 13, 98])


@pytest.mark.parametrize("length", [2, 3, 25, 110, 568])
@pytest.mark.parametrize("denoiser", [T5, DenoiserConfig(0.5, 32.0)])
def test_inputs_and_targets_make_up_the_original(length, denoiser):
    tokens = np.random.default_rng(length).integers(3, 800, length)
    example = corrupted(tokens, denoiser)
    assert joined(example) == tokens.tolist()
    assert (len(example["inputs"]) + 1, len(example["targets"]) + 1) == denoiser.lengths(length)


def test_single_token_stays_in_the_inputs():
    example = corrupted(np.array([7]), T5)
    assert example["inputs"].tolist() == [7]
    assert example["targets"].tolist() == [VOCABULARY - 1]


def test_seeds():
    tokens = np.arange(3, 571)
    first, again = corrupted(tokens, T5, seed=1), corrupted(tokens, T5, seed=1)
    np.testing.assert_array_equal(first["inputs"], again["inputs"])
    other = corrupted(tokens, T5, seed=2)
    assert (first["inputs"] != other["inputs"]).any()


def test_each_segment_is_masked_differently():
    dataset = tf.data.Dataset.from_tensors({"targets": tf.range(3, 571)}).repeat(2)
    with seqio.utils.map_seed_manager(0):
        first, second = span_corruption(dataset, T5, VOCABULARY).as_numpy_iterator()
    assert (first["inputs"] != second["inputs"]).any()


def test_concatenation_loses_nothing():
    lengths = [5, 1, 70_000, 12, 3]
    tokens = np.arange(sum(lengths), dtype=np.int32)
    documents = np.split(tokens, np.cumsum(lengths)[:-1])
    dataset = tf.data.Dataset.from_generator(
        lambda: ({"targets": d} for d in documents),
        output_signature={"targets": tf.TensorSpec([None], tf.int32)},
    )
    segments = [s["targets"] for s in concatenate(dataset, 64).as_numpy_iterator()]
    assert {len(s) for s in segments[:-1]} == {64}
    assert len(segments[-1]) == len(tokens) % 64
    np.testing.assert_array_equal(np.concatenate(segments), tokens)
