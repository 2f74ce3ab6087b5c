"""How far a metric would move with other examples: bootstrap intervals (Efron 1979).

Examples are drawn with replacement, as many as there are, and all metrics are computed of those.
That is done by arrays: means are means of what each example is worth, F1 and Matthews' correlation
are functions of how many examples are of which class and predicted as which.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from spade_jax.data.metrics import CORRELATIONS, finite_number

RESAMPLES = 1000
# Of a metric's values; between these bounds lie 95 % of them.
_QUANTILES = (0.025, 0.975)
# Numbers of rows that are held at a time.
_HELD = 4_000_000


def resampled(
    metrics: Sequence[str],
    targets: Sequence[str],
    predictions: Sequence[str],
    labels: Sequence[str],
    values: Mapping[str, Sequence[float]],
    *,
    seed: int = 0,
    count: int = RESAMPLES,
) -> dict[str, np.ndarray]:
    """The metrics of `count` resamples of the examples, the same resamples for all.

    Args:
      metrics, targets, predictions, labels: as of `data.metrics.score`, which has taken them.
      values: what `data.metrics.by_example` gives of them.

    Returns:
      By metric float64 [count].
    """
    examples = len(targets)
    statistics = _Statistics(metrics, targets, predictions, labels, values)
    random = np.random.default_rng(seed)
    portion = max(1, _HELD // examples)
    parts = [
        statistics(random.integers(examples, size=(min(portion, count - begin), examples)))
        for begin in range(0, count, portion)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in metrics}


def interval(values: Sequence[float] | np.ndarray) -> list[float]:
    """The bounds between which 95 % of a metric's resampled values lie."""
    return [float(bound) for bound in np.quantile(values, _QUANTILES)]


class _Statistics:
    """The metrics of some rows, int [count, n], as `data.metrics.score` defines them."""

    def __init__(
        self,
        metrics: Sequence[str],
        targets: Sequence[str],
        predictions: Sequence[str],
        labels: Sequence[str],
        values: Mapping[str, Sequence[float]],
    ):
        self._metrics = metrics
        self._values = {name: np.array(own) for name, own in values.items()}
        self._classes = len(labels)
        if {"f1", "matthews"} & {*metrics}:
            self._cells = cells(labels, targets, predictions)
        if {*CORRELATIONS} & {*metrics}:
            self._true, self._predicted = numbers(targets), numbers(predictions)

    def __call__(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        found = {name: own[rows].mean(1) for name, own in self._values.items()}
        if {"f1", "matthews"} & {*self._metrics}:
            counts = _count(self._cells[rows], self._classes * (self._classes + 1))
            table = counts.reshape(len(rows), self._classes, self._classes + 1)
            found |= {"matthews": _matthews(table)}
            found |= {"f1": _f1(table)} if "f1" in self._metrics else {}
        if {*CORRELATIONS} & {*self._metrics}:
            true, predicted = self._true[rows], self._predicted[rows]
            found["pearson"] = _pearson(true, predicted)
            if "spearman" in self._metrics:
                from scipy.stats import rankdata

                found["spearman"] = _pearson(rankdata(true, axis=1), rankdata(predicted, axis=1))
        return {name: found[name] for name in self._metrics}


def cells(labels: Sequence[str], targets: Sequence[str], predictions: Sequence[str]) -> np.ndarray:
    """Of each example its place in a table of true classes by predicted ones, flat; the last
    column is of what is no label."""
    index = {label: i for i, label in enumerate(labels)}
    width = len(labels) + 1
    return np.array(
        [
            index[target.strip()] * width + index.get(prediction.strip(), len(labels))
            for target, prediction in zip(targets, predictions, strict=True)
        ]
    )


def numbers(texts: Sequence[str]) -> np.ndarray:
    """What texts are as numbers; what is none counts as -1."""
    found = map(finite_number, texts)
    return np.array([-1.0 if number is None else number for number in found])


def _count(places: np.ndarray, width: int) -> np.ndarray:
    """How often each of `width` numbers is in each row."""
    rows = len(places)
    flat = (places + width * np.arange(rows)[:, None]).ravel()
    return np.bincount(flat, minlength=rows * width).reshape(rows, width)


def _f1(table: np.ndarray) -> np.ndarray:
    """Of two classes, of which the second is positive; no label is the wrong one."""
    right = table[:, 1, 1]
    wrong = table[:, 1, [0, 2]].sum(1) + table[:, 0, [1, 2]].sum(1)
    return _divided(2 * right, 2 * right + wrong)


def _matthews(table: np.ndarray) -> np.ndarray:
    """Of any number of classes (Gorodkin 2004); no label is a class of its own."""
    total = table.sum((1, 2)).astype(float)
    right = np.trace(table, axis1=1, axis2=2)
    true, predicted = table.sum(2).astype(float), table.sum(1).astype(float)
    # No target is of the last class.
    together = right * total - (true * predicted[:, :-1]).sum(1)
    spread = (total**2 - (true**2).sum(1)) * (total**2 - (predicted**2).sum(1))
    return _divided(together, np.sqrt(spread))


def _pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Row by row; 0 where a side is constant, or so large that it overflows."""
    varies = (np.ptp(x, axis=1) > 0) & (np.ptp(y, axis=1) > 0)
    with np.errstate(all="ignore"):
        x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
        found = (x * y).sum(1) / np.sqrt((x**2).sum(1) * (y**2).sum(1))
    return np.where(varies & np.isfinite(found), found, 0.0)


def _divided(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """0 where there is nothing to divide by."""
    return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1), 0.0)
