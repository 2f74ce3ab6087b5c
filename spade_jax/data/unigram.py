"""The unigram distribution: what a model that knows no context could do."""

from collections.abc import Iterable

import numpy as np

from spade_jax.objectives.seq2seq_batch import Seq2SeqBatch


def unigram_cross_entropy(
    train: Iterable[dict[str, np.ndarray]],
    validation: Iterable[dict[str, np.ndarray]],
    vocabulary_size: int,
) -> float:
    """Cross-entropy of validation targets under the unigrams of training targets.

    -1/N sum_i log p(y_i) with p(y) = (count(y) + 1) / (total + v), over the tokens of loss
    weight above 0.

    Args:
      train, validation: batches; of an endless iterator pass `itertools.islice(it, n)`.

    Returns:
      Nats per token.
    """
    counts = _target_counts(train, vocabulary_size)
    log_probabilities = np.log(counts + 1.0) - np.log(counts.sum() + vocabulary_size)
    held_out = _target_counts(validation, vocabulary_size)
    return float(-(held_out @ log_probabilities) / held_out.sum())


def _target_counts(batches: Iterable[dict[str, np.ndarray]], vocabulary_size: int) -> np.ndarray:
    """How often each token is a target: float64 [v]."""
    counts = np.zeros(vocabulary_size)
    for batch in batches:
        targets = Seq2SeqBatch.of(batch).counted_targets
        counts += np.bincount(targets, minlength=vocabulary_size)
    return counts
