"""Span corruption against its definition, in numpy and in tf.data, which run the same code."""

import itertools

import numpy as np
import pytest
import seqio

from spade_jax.data._tensorflow import tf
from spade_jax.data.config import DenoiserConfig
from spade_jax.data.denoising import concatenate, corrupt_spans
from spade_jax.data.span_corruption import (
    count_tokens,
    noise_mask,
    random_partition,
    replace_spans,
    span_corruption,
)

VOCABULARY = 1000
FIRST_SENTINEL = 800
T5 = DenoiserConfig(0.15, 3.0)
DENOISERS = (
    T5,
    DenoiserConfig(0.5, 3.0),
    DenoiserConfig(0.15, 8.0),
    DenoiserConfig(0.3, 1.0),
    DenoiserConfig(0.5, 32.0),
)
LENGTHS = (1, 2, 3, 7, 25, 30, 110, 568)


def drawing(seed: int):
    """numpy's way to choose numbers."""
    rng = np.random.default_rng(seed)
    return lambda count, chosen: rng.choice(count, chosen, replace=False)


def shuffling(seed):
    """TensorFlow's: twice, of kept tokens and of masked ones."""
    seeds = iter(tf.random.experimental.stateless_split(seed, 2))

    def choose(count, chosen):
        return tf.random.experimental.stateless_shuffle(tf.range(count), next(seeds))[:chosen]

    return lambda count, chosen: choose(count, chosen).numpy()


def documents() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(3, FIRST_SENTINEL, length).astype(np.int32) for length in LENGTHS]


def dataset_of(arrays) -> tf.data.Dataset:
    return tf.data.Dataset.from_generator(
        lambda: ({"targets": array} for array in arrays),
        output_signature={"targets": tf.TensorSpec([None], tf.int32)},
    )


def by_tensorflow(arrays, denoiser: DenoiserConfig, seed: int = 0) -> list[tuple]:
    with seqio.utils.map_seed_manager(seed):
        dataset = corrupt_spans(dataset_of(arrays), denoiser, max(LENGTHS), VOCABULARY)
    return [(pair["inputs"], pair["targets"]) for pair in dataset.as_numpy_iterator()]


def by_numpy(arrays, denoiser: DenoiserConfig, seed: int = 0) -> list[tuple]:
    choose = drawing(seed)
    return [
        span_corruption(array, count_tokens(len(array), denoiser), VOCABULARY, choose, np)
        for array in arrays
    ]


def masks(denoiser: DenoiserConfig, length: int, count: int) -> np.ndarray:
    choose = drawing(0)
    return np.stack([noise_mask(count_tokens(length, denoiser), choose, np) for _ in range(count)])


def runs(mask: np.ndarray) -> list[tuple[bool, int]]:
    return [(bool(kind), len(list(group))) for kind, group in itertools.groupby(mask)]


def joined(inputs: np.ndarray, targets: np.ndarray) -> list[int]:
    """Puts the spans of the targets back into the inputs; sentinels must count down from v-1."""
    starts = np.flatnonzero(targets >= FIRST_SENTINEL)
    spans = np.split(targets, starts)
    assert spans[0].size == 0  # Targets begin with a sentinel.
    expected = VOCABULARY - 1 - np.arange(len(starts))
    np.testing.assert_array_equal(targets[starts], expected)
    np.testing.assert_array_equal(inputs[inputs >= FIRST_SENTINEL], expected)
    tokens: list[int] = []
    for token in inputs.tolist():
        tokens += spans[VOCABULARY - token][1:].tolist() if token >= FIRST_SENTINEL else [token]
    return tokens


@pytest.mark.parametrize("corrupted", [by_numpy, by_tensorflow])
@pytest.mark.parametrize("denoiser", DENOISERS)
def test_inputs_and_targets_make_up_the_original(corrupted, denoiser):
    for tokens, (inputs, targets) in zip(documents(), corrupted(documents(), denoiser)):
        assert inputs.dtype == targets.dtype == np.int32
        if len(tokens) == 1:  # It stays in the inputs.
            assert (inputs, targets) == (tokens, [VOCABULARY - 1])
        else:
            assert joined(inputs, targets) == tokens.tolist()
            assert (len(inputs) + 1, len(targets) + 1) == denoiser.lengths(len(tokens))


@pytest.mark.parametrize("denoiser", DENOISERS)
def test_tensorflow_corrupts_as_numpy_does_with_the_same_numbers(denoiser):
    # Of seed n seqio takes two streams of numbers, those of n and n + 1, a pair for each segment.
    streams = (tf.data.Dataset.random(seed=n).as_numpy_iterator() for n in (4, 5))
    for tokens, pair, seed in zip(
        documents(), by_tensorflow(documents(), denoiser, 4), zip(*streams)
    ):
        counts = count_tokens(len(tokens), denoiser)
        expected = span_corruption(tokens, counts, VOCABULARY, shuffling(seed), np)
        for array, correct in zip(pair, expected, strict=True):
            np.testing.assert_array_equal(array, correct)


@pytest.mark.parametrize("denoiser", DENOISERS)
@pytest.mark.parametrize("length", LENGTHS[1:])
def test_mask_has_exactly_the_noise_and_spans_of_the_formula(denoiser, length):
    noise, spans = denoiser.count_noise(length)
    for mask in masks(denoiser, length, 20):
        assert mask.dtype == bool
        assert [kind for kind, _ in runs(mask)] == [False, True] * spans
        assert mask.sum() == noise


def test_t5_segment_has_85_masked_tokens_in_28_spans():
    (mask,) = masks(T5, 568, 1)
    assert mask.sum() == 85
    assert len(runs(mask)) == 2 * 28


def assert_equally_probable(draws, kinds: int, quantile: float) -> None:
    """Args: `quantile` is that of 0.999 of chi squared with kinds - 1 degrees of freedom."""
    found, counts = np.unique(draws, axis=0, return_counts=True)
    assert len(found) == kinds
    mean = len(draws) / kinds
    assert ((counts - mean) ** 2 / mean).sum() < quantile


def test_what_tensorflow_chooses_is_equally_probable():
    seeds = np.random.default_rng(0).integers(0, 2**31, (5000, 2)).astype(np.int32)
    shuffled = tf.data.Dataset.from_tensor_slices(seeds).map(
        lambda seed: tf.random.experimental.stateless_shuffle(tf.range(5), seed)
    )
    chosen = next(shuffled.batch(5000).as_numpy_iterator())[:, :2]
    assert_equally_probable(np.sort(chosen, axis=1), kinds=10, quantile=27.9)


def test_partitions_are_equally_probable():
    choose = drawing(0)
    draws = np.stack([random_partition(6, 3, choose, np) for _ in range(5000)])
    assert (draws.sum(axis=1) == 6).all()
    assert (draws >= 1).all()
    # Five borders, two of which are chosen.
    assert_equally_probable(draws, kinds=10, quantile=27.9)


def test_masks_are_equally_probable():
    denoiser = DenoiserConfig(0.4, 2.0)
    assert denoiser.count_noise(10) == (4, 2)
    # Six kept tokens in two runs: 5 ways; four masked ones: 3 ways.
    assert_equally_probable(masks(denoiser, 10, 6000), kinds=15, quantile=36.1)


def test_masking_is_even_over_positions_away_from_the_ends():
    mean = masks(T5, 568, 4000)[:, 40:-40].mean(axis=0)
    # The last token is always masked, which leaves a little less for the others.
    assert 0.145 < mean.mean() < 85 / 568
    assert np.abs(mean - mean.mean()).max() < 5 * np.sqrt(0.15 * 0.85 / 4000)


def test_runs_of_both_kinds_have_the_right_mean_and_vary():
    lengths = np.array([[n for _, n in runs(mask)] for mask in masks(T5, 568, 200)])
    np.testing.assert_allclose(lengths[:, 1::2].mean(), 85 / 28)
    np.testing.assert_allclose(lengths[:, 0::2].mean(), 483 / 28)
    assert lengths[:, 1::2].min() == 1
    assert lengths[:, 1::2].max() > 10


def test_replace_spans():
    tokens = np.array([10, 11, 12, 13, 14, 15], np.int32)
    mask = np.array([True, True, False, True, False, False])
    np.testing.assert_array_equal(replace_spans(tokens, mask, 99, np), [99, 12, 98, 14, 15])
    np.testing.assert_array_equal(replace_spans(tokens, ~mask, 99, np), [10, 11, 99, 13, 98])
    for alike in (mask | True, mask & False):
        replaced = replace_spans(tokens, alike, 99, np)
        np.testing.assert_array_equal(replaced, [99] if alike.all() else tokens)
        assert replaced.dtype == np.int32


@pytest.mark.parametrize("corrupted", [by_numpy, by_tensorflow])
def test_seeds(corrupted):
    """Equal ones give equal masks; others, and other segments, other masks."""
    segment = np.arange(3, 571, dtype=np.int32)
    (first, _), (second, _) = corrupted([segment] * 2, T5, seed=1)
    (again, _), (other, _) = corrupted([segment] * 2, T5, seed=1)[0], corrupted([segment], T5, 2)[0]
    np.testing.assert_array_equal(first, again)
    assert (first != second).any()
    assert (first != other).any()


def test_concatenation_loses_nothing():
    lengths = [5, 1, 70_000, 12, 3]
    tokens = np.arange(sum(lengths), dtype=np.int32)
    whole_documents = dataset_of(np.split(tokens, np.cumsum(lengths)[:-1]))
    segments = [s["targets"] for s in concatenate(whole_documents, 64).as_numpy_iterator()]
    assert {len(s) for s in segments[:-1]} == {64}
    assert len(segments[-1]) == len(tokens) % 64
    np.testing.assert_array_equal(np.concatenate(segments), tokens)
