"""What files of predictions say: which classes are taken for which, and numbers against numbers."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from spade_jax.data.metrics import finite_number
from spade_jax.report.bootstrap import cells


@dataclasses.dataclass(frozen=True)
class Confusion:
    """How many examples of each class were predicted as which.

    Attributes:
      labels: the classes.
      counts: int [true class, predicted class]; the last column is of predictions that are no
        label.
    """

    labels: Sequence[str]
    counts: np.ndarray

    @property
    def no_label(self) -> int:
        """Predictions that are no label."""
        return int(self.counts[:, -1].sum())

    def per_class(self) -> list[tuple[str, float, float, float, int]]:
        """Of each class its label, precision, recall, F1, and how many examples there are; a share
        of nothing is 0."""
        right = np.diagonal(self.counts)
        predicted, true = self.counts[:, :-1].sum(0), self.counts.sum(1)
        precision = right / np.maximum(predicted, 1)
        recall = right / np.maximum(true, 1)
        f1 = 2 * right / np.maximum(predicted + true, 1)
        return list(
            zip(
                self.labels,
                precision.tolist(),
                recall.tolist(),
                f1.tolist(),
                true.astype(int).tolist(),
            )
        )


def confusion(
    labels: Sequence[str], targets: Sequence[str], predictions: Sequence[str]
) -> Confusion:
    """Of texts, each of the targets a label but for white space around it."""
    shape = (len(labels), len(labels) + 1)
    places = cells(labels, targets, predictions)
    return Confusion(labels, np.bincount(places, minlength=shape[0] * shape[1]).reshape(shape))


def points(
    targets: Sequence[str], predictions: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, int]:
    """Targets and predictions that both are numbers, float64 [n], and how many predictions are
    none."""
    pairs = [
        (finite_number(t), finite_number(p)) for t, p in zip(targets, predictions, strict=True)
    ]
    kept = [pair for pair in pairs if None not in pair]
    true, predicted = np.array(kept, float).reshape(-1, 2).T
    return true, predicted, sum(p is None for _, p in pairs)
