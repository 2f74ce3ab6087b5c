"""The unigram distribution: what a model that knows no context could do."""

from collections.abc import Iterable

import numpy as np


def unigram_cross_entropy(
    train: Iterable[np.ndarray], validation: Iterable[np.ndarray], vocabulary_size: int
) -> float:
    """Cross-entropy of validation targets under the unigrams of training targets.

    -1/N sum_i log p(y_i) with p(y) = (count(y) + 1) / (total + v).

    Args:
      train, validation: the targets that count of each batch, int [n].

    Returns:
      Nats per token.
    """
    counts = _counts(train, vocabulary_size)
    log_probabilities = np.log(counts + 1.0) - np.log(counts.sum() + vocabulary_size)
    held_out = _counts(validation, vocabulary_size)
    return float(-(held_out @ log_probabilities) / held_out.sum())


def _counts(batches: Iterable[np.ndarray], vocabulary_size: int) -> np.ndarray:
    """How often each token is a target: float64 [v]."""
    counts = np.zeros(vocabulary_size)
    for targets in batches:
        counts += np.bincount(targets, minlength=vocabulary_size)
    return counts
