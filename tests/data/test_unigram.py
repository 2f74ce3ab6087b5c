"""The unigram distribution by hand."""

import dataclasses

import numpy as np

from spade_jax.data.unigram import unigram_cross_entropy
from spade_jax.objectives.seq2seq_batch import Seq2SeqBatch


def test_unigram_cross_entropy():
    def batch(targets, weights):
        targets = np.array(targets)
        counted = Seq2SeqBatch.unpacked(np.ones_like(targets), targets)
        return dataclasses.replace(counted, weights=np.array(weights)).named()

    train = [batch([[1, 1, 2, 0]], [[1, 1, 1, 0]]), batch([[3]], [[1]])]
    validation = [batch([[1, 2]], [[1, 1]]), batch([[0, 0]], [[1, 0]])]
    # Counts 0, 2, 1, 1 of v = 4, plus one each: probabilities 1/8, 3/8, 2/8, 2/8.
    expected = -(np.log(3 / 8) + np.log(2 / 8) + np.log(1 / 8)) / 3
    np.testing.assert_allclose(unigram_cross_entropy(train, validation, 4), expected)
