"""Span corruption in numpy against the one in tf.data, which has tests of its own."""

import itertools

import numpy as np
import pytest

from spade_jax.data import span_corruption as in_tf
from spade_jax.data._tensorflow import tf
from spade_jax.data.cache.span_corruption import (
    noise_mask,
    random_partition,
    replace_spans,
    span_corruption,
)
from spade_jax.data.config import DenoiserConfig

VOCABULARY = 1000
T5 = DenoiserConfig(0.15, 3.0)


def runs(mask: np.ndarray) -> list[bool]:
    return [bool(kind) for kind, _ in itertools.groupby(mask)]


@pytest.mark.parametrize(
    "denoiser", [T5, DenoiserConfig(0.5, 3.0), DenoiserConfig(0.15, 8.0), DenoiserConfig(0.3, 1.0)]
)
@pytest.mark.parametrize("length", [1, 2, 3, 7, 30, 110, 568])
def test_mask_has_as_much_noise_in_as_many_spans(denoiser, length):
    rng = np.random.default_rng(length)
    tf_mask = in_tf.noise_mask(length, denoiser, tf.constant([1, length])).numpy()
    for _ in range(20):
        mask = noise_mask(length, denoiser, rng)
        assert mask.dtype == bool
        assert mask.shape == (length,)
        assert mask.sum() == tf_mask.sum()
        assert runs(mask) == runs(tf_mask)


def test_partitions_are_equally_probable():
    rng = np.random.default_rng(0)
    draws = [random_partition(6, 3, rng) for _ in range(5000)]
    kinds, counts = np.unique(draws, axis=0, return_counts=True)
    assert len(kinds) == 10  # Five borders, two of which are chosen.
    assert (kinds.sum(axis=1) == 6).all()
    assert (kinds >= 1).all()
    chi_squared = ((counts - 500) ** 2 / 500).sum()
    assert chi_squared < 27.9  # The 0.999 quantile at 9 degrees of freedom.


def test_masks_are_equally_probable():
    rng = np.random.default_rng(1)
    draws = [noise_mask(10, DenoiserConfig(0.4, 2.0), rng) for _ in range(6000)]
    masks, counts = np.unique(draws, axis=0, return_counts=True)
    assert len(masks) == 15  # Six kept tokens in two runs: 5 ways; four masked ones: 3 ways.
    chi_squared = ((counts - 400) ** 2 / 400).sum()
    assert chi_squared < 36.1  # The 0.999 quantile at 14 degrees of freedom.


@pytest.mark.parametrize("length", [1, 2, 9, 110])
def test_spans_are_replaced_as_in_tf(length):
    rng = np.random.default_rng(length)
    for density in (0.0, 0.2, 0.5, 1.0):
        tokens = rng.integers(3, 800, length).astype(np.int32)
        mask = rng.random(length) < density
        expected = in_tf.replace_spans(tf.constant(tokens), tf.constant(mask), 999).numpy()
        replaced = replace_spans(tokens, mask, 999)
        np.testing.assert_array_equal(replaced, expected)
        assert replaced.dtype == np.int32


@pytest.mark.parametrize("length", [2, 3, 25, 110, 568])
@pytest.mark.parametrize("denoiser", [T5, DenoiserConfig(0.5, 32.0)])
def test_inputs_and_targets_make_up_the_original(length, denoiser):
    rng = np.random.default_rng(length)
    tokens = rng.integers(3, 800, length).astype(np.int32)
    inputs, targets = span_corruption(tokens, denoiser, VOCABULARY, rng)
    assert (len(inputs) + 1, len(targets) + 1) == denoiser.lengths(length)
    starts = np.flatnonzero(targets >= VOCABULARY - 100)
    np.testing.assert_array_equal(targets[starts], VOCABULARY - 1 - np.arange(len(starts)))
    spans = dict(zip(targets[starts].tolist(), np.split(targets, starts)[1:]))
    joined = [spans[t][1:].tolist() if t in spans else [t] for t in inputs.tolist()]
    assert list(itertools.chain(*joined)) == tokens.tolist()


def test_single_token_stays_in_the_inputs():
    inputs, targets = span_corruption(
        np.array([7], np.int32), T5, VOCABULARY, np.random.default_rng(0)
    )
    assert inputs.tolist() == [7]
    assert targets.tolist() == [VOCABULARY - 1]
