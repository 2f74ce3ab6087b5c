"""The unigram distribution by hand."""

import numpy as np

from spade_jax.data.unigram import unigram_cross_entropy


def test_unigram_cross_entropy():
    train, validation = [np.array([1, 1, 2]), np.array([3])], [np.array([1, 2]), np.array([0])]
    # Counts 0, 2, 1, 1 of v = 4, plus one each: probabilities 1/8, 3/8, 2/8, 2/8.
    expected = -(np.log(3 / 8) + np.log(2 / 8) + np.log(1 / 8)) / 3
    np.testing.assert_allclose(unigram_cross_entropy(train, validation, 4), expected)
