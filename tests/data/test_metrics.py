"""Metrics of fine-tuning against values computed by hand or from their formulas."""

import re
import subprocess
import sys

import numpy as np
import pytest

from spade_jax.data.config import DataError
from spade_jax.data.metrics import METRICS, check, score

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
LABELS = ("no", "yes")


def one(metric: str, targets, predictions, labels=()) -> float:
    return score([metric], targets, predictions, labels)[metric]


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """The correlation of vectors, or Gorodkin's of one-hot rows: sums run over all axes."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    return (x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum())


def ranks(x: np.ndarray) -> np.ndarray:
    """Ranks from 1, equal numbers having the mean of theirs."""
    return (x < x[:, None]).sum(axis=1) + ((x == x[:, None]).sum(axis=1) + 1) / 2


# Labels that are numbers too, so that every metric is defined.
MIXED = ["1", "0", "1", "1", "0", "0", "1"], ["1", "0", "0", "x", " 1\n", "", "1"]


def test_names_and_their_order():
    names = "accuracy f1 matthews pearson spearman rouge1 rouge2 rougeL rougeLsum sequence_accuracy"
    assert tuple(names.split()) == METRICS


@pytest.mark.parametrize("metrics", [METRICS, METRICS[::-1], (), *[(name,) for name in METRICS]])
def test_values_are_floats_in_the_order_asked_for(metrics):
    values = score(metrics, *MIXED, ("0", "1"))
    assert tuple(values) == metrics
    assert all(type(value) is float for value in values.values())
    every = score(METRICS, *MIXED, ("0", "1"))
    assert values == {name: every[name] for name in metrics}


def test_order_and_repetition_of_examples_do_not_matter():
    targets, predictions = MIXED
    expected = pytest.approx(score(METRICS, *MIXED, ("0", "1")), rel=1e-12)
    order = np.random.default_rng(0).permutation(len(targets))
    shuffled = [targets[i] for i in order], [predictions[i] for i in order]
    assert score(METRICS, *shuffled, ("0", "1")) == expected
    assert score(METRICS, targets * 3, predictions * 3, ("0", "1")) == expected


def test_importing_the_module_loads_no_library():
    script = (
        "import sys; from spade_jax.data.metrics import METRICS, check; check(METRICS, ('a', 'b'));"
        "print({'tensorflow', 'seqio', 'jax', 'sklearn', 'scipy', 'rouge_score', 'nltk', 'numpy'}"
        " & set(sys.modules))"
    )
    run = [sys.executable, "-W", "error", "-c", script]
    assert subprocess.check_output(run, text=True) == "set()\n"


def test_accuracy_ignores_whitespace_around_texts_only():
    targets = ["yes", "no ", "a b", "yes", "no"]
    predictions = [" yes\n", "no", "a  b", "Yes", ""]
    assert one("accuracy", targets, predictions) == 2 / 5


def test_a_word_that_is_no_label_is_wrong():
    predictions = ["yes", "maybe", "no", "", " no", "yes no"]
    targets = ["yes", "yes", "no", "no", "no", "yes"]
    assert one("accuracy", targets, predictions, LABELS) == 3 / 6


def test_sequence_accuracy_ignores_how_much_whitespace_there_is():
    targets = ["a b", "a\n\tb ", "a b", "ab", "a b", ""]
    predictions = ["  a \n b", "a b", "a c", "a b", "b a", " "]
    assert one("sequence_accuracy", targets, predictions) == 3 / 6


def test_sequence_accuracy_is_of_whole_texts_where_there_are_labels():
    assert one("sequence_accuracy", ["yes", "no"], ["yes", "no no"], LABELS) == 1 / 2


def test_f1_counts_the_second_label_as_positive():
    targets = ["yes", "yes", "yes", "no"]
    predictions = ["yes", " yes\n", "no", "no"]
    # "yes": tp = 2, fp = 0, fn = 1. "no": tp = 1, fp = 1, fn = 0.
    assert one("f1", targets, predictions, LABELS) == pytest.approx(4 / (4 + 0 + 1))
    assert one("f1", targets, predictions, LABELS[::-1]) == pytest.approx(2 / (2 + 1 + 0))


def test_f1_counts_no_label_as_the_class_that_the_target_is_not():
    targets = ["yes", "yes", "yes", "no", "no"]
    predictions = ["yes", "yes", "maybe", "no", ""]
    # tp = 2; "maybe" for "yes" is a false negative, "" for "no" a false positive.
    assert one("f1", targets, predictions, LABELS) == pytest.approx(4 / (4 + 1 + 1))


def test_f1_of_constant_predictions():
    targets = ["yes", "no", "no", "no"]
    assert one("f1", targets, ["no"] * 4, LABELS) == 0.0  # No positive is predicted.
    assert one("f1", targets, ["yes"] * 4, LABELS) == pytest.approx(2 / (2 + 3 + 0))
    assert one("f1", ["no"] * 4, ["no"] * 4, LABELS) == 0.0  # There is no positive at all.
    assert one("f1", ["yes"] * 4, ["yes"] * 4, LABELS) == 1.0


def test_f1_of_empty_predictions_is_0():
    assert one("f1", ["yes", "no"], ["", ""], LABELS) == 0.0


def test_matthews_of_two_labels():
    targets = ["yes"] * 3 + ["no"] * 5
    predictions = ["yes", " yes\n", "no", "yes", "no", "no", "no", "no"]
    # tp = 2, fn = 1, fp = 1, tn = 4: (tp tn - fp fn) / sqrt(3 * 3 * 5 * 5).
    for labels in (LABELS, LABELS[::-1]):
        assert one("matthews", targets, predictions, labels) == pytest.approx((8 - 1) / 15)


def test_matthews_counts_no_label_as_a_class_of_its_own():
    # Of 4, 3 are right; predicted: 2 "no", 1 "yes", 1 neither; true: 2 "no", 2 "yes".
    # (4 * 3 - (2 * 2 + 1 * 2)) / sqrt((16 - 4 - 1 - 1) * (16 - 4 - 4)).
    value = one("matthews", ["yes", "yes", "no", "no"], ["yes", "maybe", "no", "no"], LABELS)
    assert value == pytest.approx(6 / np.sqrt(10 * 8))


@pytest.mark.parametrize("word", ["yes", "no", "", "maybe"])
def test_matthews_of_constant_predictions_or_targets_is_0(word):
    assert one("matthews", ["yes", "no", "no"], [word] * 3, LABELS) == 0.0
    assert one("matthews", ["yes"] * 3, ["yes", word, word], LABELS) == 0.0


def test_matthews_of_opposite_and_equal_labels():
    assert one("matthews", ["yes", "no"] * 3, ["no", "yes"] * 3, LABELS) == pytest.approx(-1)
    assert one("matthews", ["yes", "no"] * 3, ["yes", "no"] * 3, LABELS) == pytest.approx(1)


def test_pearson_and_spearman():
    # Around their means: (-1.5, -0.5, 0.5, 1.5) and (-3, -1, 0, 4).
    values = score(["pearson", "spearman"], ["1", "2", "3", "4"], ["2", "4.0", " 5\n", "9e0"])
    assert values["pearson"] == pytest.approx(11 / np.sqrt(5 * 26))
    assert values["spearman"] == pytest.approx(1)


def test_spearman_gives_ties_their_mean_rank():
    # Ranks 1, 3.5, 3.5, 2; around their mean: (-1.5, 1, 1, -0.5).
    value = one("spearman", ["1", "2", "3", "4"], ["-7", "30", "30", "5"])
    assert value == pytest.approx(1.5 / np.sqrt(5 * 4.5))


@pytest.mark.parametrize("text", ["-1", "x", "", "nan", "inf", "-inf", "1e999", "3.0 stars"])
def test_what_is_no_finite_number_counts_as_minus_1(text):
    # (1, -1, 3) around its mean is (0, -2, 2), and its ranks are (2, 1, 3).
    values = score(["pearson", "spearman"], ["1", "2", "3"], ["1", text, "3"])
    assert values["pearson"] == pytest.approx(2 / np.sqrt(2 * 8))
    assert values["spearman"] == pytest.approx(1 / np.sqrt(2 * 2))


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
def test_undefined_correlations_are_0(metric):
    numbers = ["0.1", "0.2", "0.4"]
    assert one(metric, numbers, ["0.3"] * 3) == 0.0
    assert one(metric, numbers, ["", "x", "-1"]) == 0.0
    assert one(metric, ["0.3"] * 3, numbers) == 0.0
    assert one(metric, ["1"], ["2"]) == 0.0


def test_correlations_of_two_pairs_and_of_huge_numbers_do_not_warn():
    assert one("spearman", ["1", "2"], ["2", "1"]) == pytest.approx(-1)
    assert one("pearson", ["1", "2"], ["2", "1"]) == pytest.approx(-1)
    assert one("pearson", ["1", "2", "3"], ["1e308", "1e308", "1.5e308"]) == 0.0
    assert -1 <= one("pearson", ["1", "2", "3"], ["1e15", f"{10**15 + 1}", "1e15"]) <= 1


def test_many_random_examples_agree_with_formulas_in_numpy():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, 300)
    y = np.where(rng.random(300) < 0.5, x, rng.integers(-1, 3, 300))  # -1: no label.
    words = [f"class {i}" for i in range(3)]
    texts = [words[i] for i in x], [words[i] if i >= 0 else "none" for i in y]
    one_hot = np.eye(4)[x], np.eye(4)[y]
    assert one("matthews", *texts, words) == pytest.approx(correlation(*one_hot))
    numbers = [str(i) for i in x], [str(i) for i in y]
    assert one("pearson", *numbers) == pytest.approx(correlation(x, y))
    assert one("spearman", *numbers) == pytest.approx(correlation(ranks(x), ranks(y)))
    true = x % 2
    wrong_if_none = np.where(y < 0, 1 - true, y % 2)
    texts = [LABELS[i] for i in true], [LABELS[i % 2] if i >= 0 else "none" for i in y]
    f1 = 2 * (true & wrong_if_none).sum() / (true.sum() + wrong_if_none.sum())
    assert one("f1", *texts, LABELS) == pytest.approx(f1)


def test_empty_predictions_are_wrong():
    values = score(METRICS, ["1", "0", "1"], ["", "", ""], ("0", "1"))
    assert values == dict.fromkeys(METRICS, 0.0)


@pytest.mark.parametrize("call", [check, lambda *a: score(a[0], ["yes"], ["yes"], *a[1:])])
@pytest.mark.parametrize(
    ("metrics", "labels", "message"),
    [
        (["f1", "acuracy"], LABELS, "task.metrics = 'acuracy': is no metric; did you mean 'accur"),
        (["rougel"], (), "task.metrics = 'rougel': is no metric; did you mean 'rougeL'?"),
        (["bleu"], (), "task.metrics = 'bleu': is no metric; known: accuracy, f1, matthews, "),
        (["f1"], (), "task.labels = (): must be two different words for metric f1"),
        (["f1"], ["yes"], "task.labels = ('yes',): must be two different words for metric f1"),
        (["f1"], ["yes", "yes"], "task.labels = ('yes', 'yes'): must be two different words for"),
        (["accuracy", "f1"], "abc", "task.labels = ('a', 'b', 'c'): must be two different words"),
        (["matthews"], (), "task.labels = (): must be the words that stand for the classes"),
    ],
)
def test_names_and_labels_are_checked(call, metrics, labels, message):
    with pytest.raises(DataError, match="^" + re.escape(message)):
        call(metrics, labels)


def test_metrics_that_need_no_labels_are_accepted_with_and_without():
    others = [name for name in METRICS if name not in ("f1", "matthews")]
    for labels in ((), LABELS, ("a", "b", "c")):
        check(others, labels)
    check(METRICS, LABELS)
    check([])


@pytest.mark.parametrize(
    ("metric", "targets", "predictions", "labels", "message"),
    [
        ("accuracy", ["a", "b"], ["a"], (), "predictions = 1 texts: must be one for each of the 2"),
        ("rouge1", [], ["a"], (), "predictions = 1 texts: must be one for each of the 0 targets"),
        ("accuracy", [], [], (), "targets = 0 texts: must be at least 1 to compute task.metrics"),
        *[
            (
                metric,
                ["yes", "Yes"],
                ["yes", "yes"],
                LABELS,
                "task.labels = ('no', 'yes'): must hold all targets, but that of example 2 is",
            )
            for metric in ("accuracy", "f1", "matthews", "sequence_accuracy", "rouge1")
        ],
        *[
            (
                metric,
                ["3.0", text],
                ["3", "4"],
                (),
                f"target of example 2 = {text!r}: must be a finite number for metrics pearson and",
            )
            for metric in ("pearson", "spearman")
            for text in ("high", "", "nan", "inf")
        ],
        *[
            (
                metric,
                ["a", text],
                ["a", text],
                (),
                f"target of example 2 = {text!r}: must hold a word, a letter or digit at least",
            )
            for metric in ROUGE
            for text in ("", "?", "…", "👍")
        ],
    ],
)
def test_examples_are_checked(metric, targets, predictions, labels, message):
    with pytest.raises(DataError, match="^" + re.escape(message)):
        score([metric], targets, predictions, labels)
