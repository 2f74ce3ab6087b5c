import numpy as np
import pytest
import scipy.stats

from spade_jax.data.metrics import by_example, score
from spade_jax.report.bootstrap import _Statistics, interval, resampled

WORDS = ("a", "b", "c")


def drawn(metrics, targets, predictions, labels=(), **settings):
    values = by_example(metrics, targets, predictions)
    return resampled(metrics, targets, predictions, labels, values, **settings)


def test_the_interval_of_a_share():
    """Resampled shares of n examples are a binomial's: 0.7 of 200 moves by 1.96 * 0.0324."""
    targets, predictions = ["yes"] * 200, ["yes"] * 140 + ["no"] * 60
    found = drawn(("accuracy",), targets, predictions, count=4000)["accuracy"]
    low, high = scipy.stats.binom.ppf((0.025, 0.975), 200, 0.7) / 200
    assert interval(found) == pytest.approx([low, high], abs=0.006)
    assert found.mean() == pytest.approx(0.7, abs=0.003)
    again = drawn(("accuracy",), targets, predictions, count=4000)["accuracy"]
    np.testing.assert_array_equal(found, again)


@pytest.mark.parametrize(
    ("metrics", "labels"),
    [
        (("accuracy", "f1"), ("a", "b")),
        (("matthews",), WORDS),
        (("pearson", "spearman"), ()),
        (("rouge1", "rougeLsum", "sequence_accuracy"), ()),
    ],
)
def test_resamples_are_measured_as_examples_are(metrics, labels):
    """Row by row what `score` says of the same examples, those that are no label among them."""
    rng = np.random.default_rng(0)
    texts = labels or WORDS
    if "pearson" in metrics:
        texts = ("1", "2.5", "3")
    targets = list(rng.choice(texts, 30))
    predictions = list(rng.choice((*texts, "neither"), 30))
    rows = rng.integers(30, size=(6, 30))
    rows[0], rows[1] = np.arange(30), 0
    values = by_example(metrics, targets, predictions)
    found = _Statistics(metrics, targets, predictions, labels, values)(rows)
    for number, row in enumerate(rows):
        expected = score(metrics, [targets[i] for i in row], [predictions[i] for i in row], labels)
        assert {name: own[number] for name, own in found.items()} == pytest.approx(expected)


def test_metrics_of_a_set_are_of_the_same_resamples():
    found = drawn(("accuracy", "sequence_accuracy"), ["a"] * 9, ["a", "b", "a"] * 3)
    np.testing.assert_array_equal(found["accuracy"], found["sequence_accuracy"])
