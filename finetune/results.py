"""What a run ends with: tables on the screen, predictions, and GLUE's submissions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from spade_jax.data.metrics import CORRELATIONS, finite_number
from spade_jax.data.text_to_text.evaluation_sets import EvaluationSet
from spade_jax.data.text_to_text.task import TextToText
from spade_jax.runs.results import write_predictions as write_rows
from spade_jax.runs.workdir import replace_file

# The leaderboard takes label words of these tasks, class numbers of the others.
_SUBMITTED_AS_WORDS = ("mnli", "ax", "qnli", "rte")


def write_split(
    workdir: Path, sets: Sequence[EvaluationSet], predictions: Sequence[Sequence[str]]
) -> list[Path]:
    """Writes the predictions of a split's sets, and submissions; returns the files."""
    files = []
    for examples, own, name in zip(sets, predictions, _names(sets), strict=True):
        path = workdir / name
        write_predictions(path, examples, own)
        submission = write_submission(workdir / "submission", examples, own)
        files += [path] if submission is None else [path, submission]
    return files


def contents(sets: Sequence[EvaluationSet]) -> list[dict[str, Any]]:
    """What is in the files of a split's predictions, as results.json has it."""

    def kind(task: TextToText) -> str:
        return "numbers" if {*CORRELATIONS} & {*task.metrics} else "texts"

    return [
        {
            "name": examples.part.name,
            "split": examples.part.split,
            "file": name,
            "kind": "classes" if examples.part.task.labels else kind(examples.part.task),
            "labels": list(examples.part.task.labels),
        }
        for examples, name in zip(sets, _names(sets), strict=True)
    ]


def _names(sets: Sequence[EvaluationSet]) -> list[str]:
    """`predictions-SPLIT.jsonl`, of several sets of a split `predictions-SPLIT-SET.jsonl`."""
    return [
        f"predictions-{examples.part.split}"
        f"{f'-{examples.part.name}' if len(sets) > 1 else ''}.jsonl"
        for examples in sets
    ]


def write_predictions(path: Path, examples: EvaluationSet, predictions: Sequence[str]) -> None:
    """One JSON object a line, in the order of the data; the file appears as a whole."""
    write_rows(
        path,
        (
            (pair.input, pair.target or None, prediction)
            for pair, prediction in zip(examples.pairs, predictions, strict=True)
        ),
    )


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
