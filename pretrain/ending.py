"""What a run ends with: numbers, predictions, and a few examples on the screen."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from spade_jax.runs.results import write_predictions, write_results
from spade_jax.telemetry.samples import Sample


@dataclasses.dataclass
class Ending:
    """What a run's parameters are worth.

    Attributes:
      splits, sets: as `runs.results` has them.
      predictions: input, target and prediction of each example, by the name of their file.
      said: what a test set says, in a sentence; None where there is none.
    """

    splits: dict[str, dict[str, Any]]
    sets: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    predictions: dict[str, Sequence[tuple[str, str, str]]] = dataclasses.field(default_factory=dict)
    said: str | None = None

    def write(self, workdir: Path, step: int) -> None:
        """Writes files of predictions and, last, results.json."""
        for name, rows in self.predictions.items():
            write_predictions(workdir / name, rows)
        write_results(workdir, {"step": step, "splits": self.splits, "sets": self.sets})


def metrics_of(evaluation: Mapping[str, float]) -> dict[str, float]:
    """Of an evaluation what is a metric."""
    return {
        name: value
        for name, value in evaluation.items()
        if isinstance(value, float) and name != "seconds"
    }


def show(samples: Sequence[Sample], names: tuple[str, str, str, str], console: Console) -> None:
    """Prints samples, whole.

    Args:
      names: what a sample is, and what its input, target and prediction are.
    """
    what, *titles = names
    width = max(map(len, titles))
    for number, sample in enumerate(samples, start=1):
        console.print(f"\nHeld-out {what} {number}")
        note = f" ({sample.note})" if sample.note else ""
        for title, text in zip(titles, (sample.input, sample.target, sample.prediction + note)):
            for line in (text or "").splitlines():
                console.print(f"  {title:{width}}  {line}", markup=False)
    console.print()
