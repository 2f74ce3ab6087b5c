"""What fine-tuning is measured by, computed on texts; importing it loads no library."""

import math
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence

from spade_jax.config import nearest
from spade_jax.data.config import DataError
from spade_jax.data.words import has_words, sentences, words

METRICS = (
    "accuracy",
    "f1",
    "matthews",
    "pearson",
    "spearman",
    "rouge1",
    "rouge2",
    "rougeL",
    "rougeLsum",
    "sequence_accuracy",
)

ROUGE = tuple(name for name in METRICS if name.startswith("rouge"))
CORRELATIONS = ("pearson", "spearman")
# Means over examples of what each is worth by itself.
MEANS = ("accuracy", "sequence_accuracy", *ROUGE)


def check(metrics: Sequence[str], labels: Sequence[str] = ()) -> None:
    """Raises DataError for an unknown metric, or labels that are not what a metric needs."""
    for name in metrics:
        if name not in METRICS:
            raise DataError(f"task.metrics = {name!r}: is no metric{nearest(name, METRICS)}")
    if "f1" in metrics and not len(labels) == len(set(labels)) == 2:
        raise DataError(
            f"task.labels = {tuple(labels)!r}: must be two different words for metric f1, "
            "of which the second is the positive class"
        )
    if "matthews" in metrics and not labels:
        raise DataError(
            "task.labels = (): must be the words that stand for the classes for metric matthews"
        )


def score(
    metrics: Sequence[str],
    targets: Sequence[str],
    predictions: Sequence[str],
    labels: Sequence[str] = (),
    values: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, float]:
    """Compares each prediction with its target.

    accuracy: share of predictions that equal their target but for whitespace around them.
    f1: 2 tp / (2 tp + fp + fn), where `labels[1]` is positive (GLUE's MRPC and QQP). A prediction
      that is no label counts as the class its target is not, as in T5. 0 without positives.
    matthews: Matthews' correlation, for more than two labels Gorodkin's (2004), of label indices;
      predictions that are no label are a class of their own.
    pearson, spearman: correlation of numbers and of their ranks. A prediction that is no finite
      number counts as -1. (In T5 so does what is no number, but nan makes the correlation nan.)
    rouge1, rouge2, rougeL, rougeLsum: mean F-measure (Lin 2004) of words of any script, which
      `words.words` finds and stems. Of one word there are no pairs, and rouge2 is 0. rougeLsum
      compares sentences, which end at newlines and where `words.sentences` says, behind an
      abbreviation too. (T5 does not stem, and ends sentences at " . " and newlines.)
    sequence_accuracy: share of predictions that equal their target, runs of whitespace counting
      as one space and those around the text not at all.

    Correlations of which one side is constant are 0.

    Args:
      metrics: names out of `METRICS`.
      targets, predictions: texts, as many of the one as of the other.
      labels: the words that targets are, one a class, for tasks that have them.
      values: what `by_example` gives of these, where it is known already.

    Returns:
      The metrics by name, in the order asked for: correlations in [-1, 1], all others in [0, 1].

    Raises:
      DataError: what `check` raises; no examples, or not as many predictions as targets; a target
        that is not one of the labels, that is not a finite number where correlations are asked
        for, or that holds no word where ROUGE is.
    """
    check(metrics, labels)
    if len(targets) != len(predictions):
        raise DataError(
            f"predictions = {len(predictions)} texts: must be one for each of the "
            f"{len(targets)} targets"
        )
    if not targets:
        raise DataError("targets = 0 texts: must be at least 1 to compute task.metrics")
    scores: dict[str, float] = {}
    if labels:
        scores |= _classes(metrics, targets, predictions, labels)
    if {*CORRELATIONS} & {*metrics}:
        scores |= _correlations(targets, predictions)
    if values is None:
        values = by_example(metrics, targets, predictions)
    scores |= {name: statistics.fmean(own) for name, own in values.items()}
    return {name: scores[name] for name in metrics}


def by_example(
    metrics: Sequence[str], targets: Sequence[str], predictions: Sequence[str]
) -> dict[str, list[float]]:
    """What each prediction is worth by itself, by those of the metrics that are means of that.

    Raises:
      DataError: a target that holds no word where ROUGE is asked for.
    """
    pairs = list(zip(targets, predictions, strict=True))
    values: dict[str, list[float]] = {}
    if "accuracy" in metrics:
        values["accuracy"] = [float(t.strip() == p.strip()) for t, p in pairs]
    if "sequence_accuracy" in metrics:
        values["sequence_accuracy"] = [float(t.split() == p.split()) for t, p in pairs]
    kinds = [name for name in metrics if name in ROUGE]
    return values | (_rouge(kinds, targets, predictions) if kinds else {})


def _classes(
    metrics: Sequence[str],
    targets: Sequence[str],
    predictions: Sequence[str],
    labels: Sequence[str],
) -> dict[str, float]:
    index = {label: i for i, label in enumerate(labels)}
    true = [index.get(text.strip(), -1) for text in targets]
    predicted = [index.get(text.strip(), -1) for text in predictions]
    if -1 in true:
        i = true.index(-1)
        raise DataError(
            f"task.labels = {tuple(labels)!r}: must hold all targets, but that of example {i + 1} "
            f"is {targets[i]!r}"
        )
    if not {"f1", "matthews"} & set(metrics):
        return {}
    from sklearn.metrics import f1_score, matthews_corrcoef

    values = {"matthews": _or_zero(matthews_corrcoef, true, predicted)}
    if "f1" in metrics:
        predicted = [1 - t if p == -1 else p for t, p in zip(true, predicted)]
        values["f1"] = float(f1_score(true, predicted, zero_division=0))
    return values


def _correlations(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    from scipy.stats import pearsonr, spearmanr

    true = [finite_number(text) for text in targets]
    if None in true:
        i = true.index(None)
        raise DataError(
            f"target of example {i + 1} = {targets[i]!r}: must be a finite number for metrics "
            "pearson and spearman"
        )
    predicted = [-1.0 if (value := finite_number(text)) is None else value for text in predictions]
    return {
        "pearson": _or_zero(lambda x, y: pearsonr(x, y).statistic, true, predicted),
        "spearman": _or_zero(lambda x, y: spearmanr(x, y).statistic, true, predicted),
    }


def finite_number(text: str) -> float | None:
    """The number that a text is; None where it is none, or not a finite one."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _or_zero(correlation: Callable, x: Sequence, y: Sequence) -> float:
    """The correlation, or 0 where there is none: a side is constant, or so large it overflows."""
    if len(set(x)) == 1 or len(set(y)) == 1:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = float(correlation(x, y))
    return value if math.isfinite(value) else 0.0


def _rouge(
    kinds: Sequence[str], targets: Sequence[str], predictions: Sequence[str]
) -> dict[str, list[float]]:
    """Only rougeLsum reads the newlines between sentences; to the others they are spaces."""
    from rouge_score.rouge_scorer import RougeScorer

    wordless = next((i for i, target in enumerate(targets) if not has_words(target)), None)
    if wordless is not None:
        raise DataError(
            f"target of example {wordless + 1} = {targets[wordless]!r}: must hold a word, a letter "
            f"or digit at least, for metrics {', '.join(kinds)}"
        )
    scorer = RougeScorer(kinds, tokenizer=_Tokenizer())
    scores = [
        scorer.score(sentences(target), sentences(prediction))
        for target, prediction in zip(targets, predictions)
    ]
    return {kind: [float(s[kind].fmeasure) for s in scores] for kind in kinds}


class _Tokenizer:
    """`words` as rouge-score takes it."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)
