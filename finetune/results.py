"""What a run ends with: tables on the screen, results.json, predictions, and GLUE's submissions."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from spade_jax.config import RunError
from spade_jax.data.metrics import finite_number
from spade_jax.data.text_to_text.evaluation_sets import EvaluationSet
from spade_jax.runs.workdir import replace_file
from spade_jax.stored import read_json

# The leaderboard takes label words of these tasks, class numbers of the others.
_SUBMITTED_AS_WORDS = ("mnli", "ax", "qnli", "rte")

# What results.json is like.
_RESULTS = {
    "step": int,
    "sources": {str: dict},
    "splits": {
        str: {"metrics": {str: float}, "baseline": {"method": str, "metrics": {str: float}}}
    },
}


def write_split(
    workdir: Path, sets: Sequence[EvaluationSet], predictions: Sequence[Sequence[str]]
) -> list[Path]:
    """Writes the predictions of a split's sets, and submissions; returns the files.

    `predictions-SPLIT.jsonl`, of several sets of a split `predictions-SPLIT-SET.jsonl`.
    """
    files = []
    for examples, own in zip(sets, predictions, strict=True):
        name = f"-{examples.part.name}" if len(sets) > 1 else ""
        path = workdir / f"predictions-{examples.part.split}{name}.jsonl"
        write_predictions(path, examples, own)
        submission = write_submission(workdir / "submission", examples, own)
        files += [path] if submission is None else [path, submission]
    return files


def write_predictions(path: Path, examples: EvaluationSet, predictions: Sequence[str]) -> None:
    """One JSON object a line, in the order of the data; the file appears as a whole."""
    lines = (
        json.dumps(
            {"input": pair.input, "target": pair.target or None, "prediction": prediction},
            ensure_ascii=False,
        )
        for pair, prediction in zip(examples.pairs, predictions, strict=True)
    )
    replace_file(path, "".join(f"{line}\n" for line in lines))


def write_submission(
    directory: Path, examples: EvaluationSet, predictions: Sequence[str]
) -> Path | None:
    """The file that the GLUE leaderboard takes for a test set; None where there is none.

    A prediction that is no label is submitted as the first one, for a submission has no gaps; a
    score that is no finite number as 0.
    """
    part = examples.part
    if part.split != "test" or not part.task.submission:
        return None
    labels = part.task.labels

    def entry(prediction: str) -> str:
        if not labels:
            number = finite_number(prediction) or 0.0
            return f"{min(max(number, 0.0), 5.0):.3f}"
        word = prediction if prediction in labels else labels[0]
        return word if part.task.name in _SUBMITTED_AS_WORDS else str(labels.index(word))

    rows = sorted(
        (int(pair.number), entry(prediction))
        for pair, prediction in zip(examples.pairs, predictions, strict=True)
    )
    directory.mkdir(exist_ok=True)
    path = directory / part.task.submission[part.number]
    replace_file(path, "index\tprediction\n" + "".join(f"{i}\t{p}\n" for i, p in rows))
    return path


def results_table(results: Mapping[str, Any]) -> Table:
    """Metrics of each split times 100, beside those of the baseline."""
    table = Table(title="Results (x 100; loss in nats)", title_justify="left")
    for column, justify in (
        ("split", "left"),
        ("metric", "left"),
        ("model", "right"),
        ("baseline", "right"),
        ("baseline is", "left"),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for split, result in results["splits"].items():
        for name, value in result["metrics"].items():
            base = result["baseline"]["metrics"].get(name)
            scale = 1 if name == "loss" else 100
            table.add_row(
                split,
                name,
                f"{value * scale:.3f}" if name == "loss" else f"{value * scale:.2f}",
                "" if base is None else f"{base * scale:.2f}",
                "" if base is None else result["baseline"]["method"],
            )
    return table


def write_results(workdir: Path, results: Mapping[str, Any]) -> None:
    """results.json, written last: where it is, everything is."""
    replace_file(workdir / "results.json", json.dumps(results, indent=2) + "\n")


def read_results(workdir: Path) -> dict[str, Any] | None:
    """What results.json tells; None without one.

    Raises:
      RunError: it is damaged.
    """
    advice = "delete it, and the same command evaluates again"
    return read_json(workdir / "results.json", _RESULTS, advice=advice, error=RunError)
