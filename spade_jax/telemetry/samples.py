"""A few inputs, what should be made of them, and what a model makes of them."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text


@dataclasses.dataclass(frozen=True)
class Sample:
    """One of what is held out.

    Attributes:
      input: its text, or "" where it has none, as pixels have.
      target: None where nobody knows it.
      prediction: what the model writes, or its class.
      note: what more there is to say of the prediction.
    """

    input: str
    target: str | None
    prediction: str
    note: str = ""

    def line(self, step: int) -> dict[str, Any]:
        """As samples.jsonl has it."""
        note = {"note": self.note} if self.note else {}
        own = {"input": self.input, "target": self.target, "prediction": self.prediction}
        return {"step": step, **own, **note}

    def rows(self) -> Iterable[tuple[str, str]]:
        """What there is of it, each with its name."""
        note = f" ({self.note})" if self.note else ""
        if self.input:
            yield "input", self.input
        if self.target is not None:
            yield "target", self.target
        yield "model", self.prediction + note


def print_samples(samples: Sequence[Sample], console: Console) -> None:
    """Prints each in two or three lines, none of them wider than the screen."""
    for sample in samples:
        for name, value in sample.rows():
            line = Text(f"  {name:6}  {' '.join(value.split())}")
            line.truncate(console.width, overflow="ellipsis")
            console.print(line)


def as_markdown(sample: Sample) -> str:
    """For TensorBoard, which reads Markdown: as code, of which nothing is markup."""
    return "\n".join(f"    {name:6}  {' '.join(value.split())}" for name, value in sample.rows())
