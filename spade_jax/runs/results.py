"""What a run ends with: results.json, and files of predictions."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from spade_jax.config import RunError
from spade_jax.runs.workdir import replace_file
from spade_jax.stored import read_json, read_json_lines

# What results.json is like. `intervals` are bounds of metrics; `sets` says of each file of
# predictions what is in it: classes, of which `labels` are the names, numbers, or other texts.
_RESULTS = {
    "step": int,
    "sources?": {str: dict},
    "splits": {
        str: {
            "metrics": {str: float},
            "examples?": int,
            "intervals?": {str: [float]},
            "baseline": {"method": str, "metrics": {str: float}},
        }
    },
    "sets?": [
        {
            "name": str,
            "split": str,
            "file": str,
            "kind": ("classes", "numbers", "texts"),
            "labels": [str],
        }
    ],
}
_PREDICTION = {"input": str, "target": (str, None), "prediction": str}


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


def write_predictions(path: Path, rows: Iterable[tuple[str, str | None, str]]) -> None:
    """One JSON object a line; the file appears as a whole.

    Args:
      rows: input, target and prediction of each example, in the order of the data. The target is
        None where nobody knows it.
    """
    names = ("input", "target", "prediction")
    lines = (json.dumps(dict(zip(names, row)), ensure_ascii=False) for row in rows)
    replace_file(path, "".join(f"{line}\n" for line in lines))


def read_predictions(path: Path) -> list[dict[str, Any]]:
    """The lines of such a file; none without one.

    Raises:
      RunError: one of them is no such line.
    """
    advice = "delete results.json, and the same command evaluates again"
    return read_json_lines(path, _PREDICTION, advice=advice, error=RunError)
