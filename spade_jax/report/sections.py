"""Sections of a page on what a run learned: numbers, curves, classes and examples."""

import collections
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from spade_jax.report.bootstrap import RESAMPLES
from spade_jax.report.figures import confusion_figure, data_uri, scatter_figure
from spade_jax.report.html import Html, Number, element, image, join, paragraph, table
from spade_jax.report.scores import Confusion, confusion, points
from spade_jax.report.workdir import Contents
from spade_jax.telemetry.curves import loss_figure, metrics_figure

# Examples of a set, letters of a text, and steps of a sample that are shown.
_EXAMPLES = 8
_LETTERS = 500
_STEPS = 10
# Metrics that have no hundred to be a part of.
_PLAIN = ("loss", "bits_per_byte")


class Section(NamedTuple):
    """A part of a page.

    Attributes:
      title: its heading.
      content: what is under it.
    """

    title: str
    content: Html


def results(run: Contents) -> Iterator[Section]:
    """The metrics of each split beside the baseline's."""
    if run.results is None or not run.results["splits"]:
        return
    rows = []
    for split, found in run.results["splits"].items():
        intervals, base = found.get("intervals", {}), found["baseline"]
        for name, value in found["metrics"].items():
            bounds = intervals.get(name)
            between = "" if bounds is None else "–".join(_metric(name, b) for b in bounds)
            guess = base["metrics"].get(name)
            rows.append(
                (
                    split,
                    name,
                    Number(_metric(name, value)),
                    Number(between),
                    Number("" if guess is None else _metric(name, guess)),
                    "" if guess is None else base["method"],
                )
            )
    heads = ("split", "metric", "model", "95 % interval", "baseline", "baseline is")
    notes = paragraph(" ".join(_notes(run.results)))
    yield Section("Results", join((table(heads, rows), notes)))


def _notes(results: Mapping[str, Any]) -> Iterator[str]:
    """What to know of the numbers."""
    yield (
        f"Of the parameters of step {results['step']:,}. Shares and correlations are times 100, "
        "losses in nats."
    )
    splits = results["splits"]
    sizes = [f"{own['examples']:,} in {name}" for name, own in splits.items() if "examples" in own]
    if sizes:
        yield f"Examples: {', '.join(sizes)}."
    intervals = [bounds for own in splits.values() for bounds in own.get("intervals", {}).values()]
    if intervals:
        yield (
            f"Intervals are of {RESAMPLES:,} bootstrap resamples of the examples: how far the "
            "numbers of these parameters would move with other examples, not with another training "
            "run."
        )
    if any(len({*bounds}) == 1 for bounds in intervals):
        yield "One without width says nothing: where all examples are alike, resamples are, too."


def curves(run: Contents) -> Iterator[Section]:
    """Loss and metrics over steps."""
    if not run.lines:
        return
    pieces = [image(data_uri(loss_figure(run.lines, run.baseline, run.best)), "Loss over steps")]
    others = metrics_figure(run.lines, run.best)
    if others is not None:
        pieces.append(image(data_uri(others), "Metrics of evaluations over steps"))
    yield Section("Curves", join(pieces))


def sets(run: Contents) -> Iterator[Section]:
    """What is in each file of predictions."""
    for own in [] if run.results is None else run.results.get("sets", []):
        rows = run.predictions[own["file"]]
        if not rows:
            continue
        name = own["name"] if own["name"] == own["split"] else f"{own['name']}, {own['split']}"
        known = [row for row in rows if row["target"] is not None]
        pieces = []
        if known and own["kind"] == "classes" and _are_labels(known, own["labels"]):
            pieces.append(_classes(own["labels"], known))
        elif known and own["kind"] == "numbers":
            pieces.append(_numbers(known))
        pieces.append(_examples(rows, classes=own["kind"] == "classes"))
        pieces.append(paragraph("All of them: ", element("code", own["file"])))
        yield Section(f"Predictions: {name}", join(pieces))


def samples(run: Contents) -> Iterator[Section]:
    """What the model made of the same few examples, step by step."""
    # Images have no text: which one it is, its place among those of its step says, too.
    by_example: dict[tuple[int, str, str | None], list[Mapping[str, Any]]] = {}
    steps = collections.Counter[int]()
    for line in run.samples:
        steps[line["step"]] += 1
        key = (steps[line["step"]], line["input"], line["target"])
        by_example.setdefault(key, []).append(line)
    pieces = []
    for (_, source, target), lines in list(by_example.items())[:_EXAMPLES]:
        about = [("input", _text(source))] if source else []
        about += [("target", _text(target))] if target is not None else []
        own = [
            (line["step"], _text(line["prediction"] + _in_brackets(line.get("note"))))
            for line in _spread(lines)
        ]
        pieces += [table(("", ""), about)] if about else []
        pieces.append(table(("step", "prediction"), own))
    if pieces:
        yield Section("Samples during training", join(pieces))


def _metric(name: str, value: float) -> str:
    plain = name.rpartition("/")[-1] in _PLAIN
    return f"{value:.3f}" if plain else f"{100 * value:.2f}"


def _are_labels(rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> bool:
    """Whether targets are what results.json says; a person may have edited either."""
    return {row["target"].strip() for row in rows} <= {*labels}


def _classes(labels: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Html:
    targets, predictions = ([row[name] for row in rows] for name in ("target", "prediction"))
    found = confusion(labels, targets, predictions)
    shares = ((label, *map(_share, (p, r, f1)), n) for label, p, r, f1, n in found.per_class())
    return join(
        (
            paragraph(_no_label(found)),
            table(("class", "precision", "recall", "F1", "examples"), shares),
            image(data_uri(confusion_figure(labels, found.counts)), "Confusion matrix"),
            element("details", element("summary", "Counts"), _counts(found)),
        )
    )


def _no_label(found: Confusion) -> str:
    if not found.no_label:
        return "All predictions are labels."
    return (
        f"{found.no_label:,} of {int(found.counts.sum()):,} predictions are no label; they count "
        "as wrong."
    )


def _counts(found: Confusion) -> Html:
    """True classes by predicted ones."""
    heads = ("true", *found.labels, "no label")
    rows = zip(found.labels, found.counts.tolist())
    return table(heads, ((label, *counts) for label, counts in rows))


def _numbers(rows: Sequence[Mapping[str, Any]]) -> Html:
    true, predicted, none = points(
        [row["target"] for row in rows], [row["prediction"] for row in rows]
    )
    words = "All predictions are numbers."
    if none:
        words = (
            f"{none:,} of {len(rows):,} predictions are no finite number; they are not in the "
            "picture, and count as -1."
        )
    pieces = [paragraph(words)]
    if len(true):
        pieces.append(image(data_uri(scatter_figure(true, predicted)), "Predicted over true"))
    return join(pieces)


def _examples(rows: Sequence[Mapping[str, Any]], *, classes: bool) -> Html:
    pieces = [element("h3", "The first ones"), _texts(rows[:_EXAMPLES])]
    if classes:
        wrong = [
            row
            for row in rows
            if row["target"] is not None and row["target"].strip() != row["prediction"].strip()
        ]
        if wrong:
            pieces += [element("h3", "The first wrong ones"), _texts(wrong[:_EXAMPLES])]
    return join(pieces)


def _texts(rows: Sequence[Mapping[str, Any]]) -> Html:
    names = ("input", "target", "prediction")
    return table(names, ([_text(row[name] or "") for name in names] for row in rows))


def _text(text: str) -> Html:
    """A text of the data; where it is long, its beginning."""
    cut = text[:_LETTERS] + "…" if len(text) > _LETTERS else text
    return element("span", cut, class_="text")


def _in_brackets(note: str | None) -> str:
    return f" ({note})" if note else ""


def _spread(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """At most so many of them, the last one too."""
    count = min(len(lines), _STEPS)
    return [lines[(i + 1) * len(lines) // count - 1] for i in range(count)]


def _share(value: float) -> Number:
    return Number(f"{100 * value:.2f}")
