"""The curves of a run over its steps, as pictures."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spade_jax import files

if TYPE_CHECKING:  # It takes its time to import.
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Lines = Sequence[Mapping[str, Any]]

# Of an evaluation, what is no metric or has a picture of its own.
_NO_PANEL = ("step", "seconds", "examples", "loss")
_COLUMNS = 3


def draw_loss(
    lines: Lines, path: Path, baseline: float | None = None, best: int | None = None
) -> None:
    """Draws training and validation loss over steps.

    Args:
      lines: those of metrics.jsonl.
      baseline: validation loss to draw beside, or None.
      best: the step to mark, or None.
    """
    write_png(loss_figure(lines, baseline, best), path)


def draw_metrics(lines: Lines, path: Path, best: int | None = None) -> None:
    """Draws what evaluations measured besides the loss, if there is anything."""
    figure = metrics_figure(lines, best)
    if figure is not None:
        write_png(figure, path)


def loss_figure(lines: Lines, baseline: float | None = None, best: int | None = None) -> "Figure":
    """As of `draw_loss`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss (nats)", title="Loss")
    for kind, label, style in (("train", "training", "-"), ("eval", "validation", "o-")):
        points = [(line["step"], line["loss"]) for line in lines if line["kind"] == kind]
        if points:
            # A line of one point would be none.
            style = "o-" if len(points) == 1 else style
            axes.plot(*zip(*points), style, label=label, markersize=4)
    for step in sorted({line["step"] for line in lines if line["kind"] == "change"}):
        axes.axvline(step, linestyle=":", color="gray")
        axes.annotate(
            " changed", (step, 1), xycoords=("data", "axes fraction"), va="top", fontsize="small"
        )
    if baseline is not None:
        axes.axhline(baseline, linestyle="--", color="gray", label="baseline")
    _mark(axes, lines, "loss", best)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    return figure


def metrics_figure(lines: Lines, best: int | None = None) -> "Figure | None":
    """A panel for each metric of the evaluations but the loss; None where there is none."""
    from matplotlib.figure import Figure

    evaluations = [line for line in lines if line["kind"] == "eval"]
    names = dict.fromkeys(
        name
        for line in evaluations
        for name, value in line.items()
        if name not in _NO_PANEL and isinstance(value, float)
    )
    if not names:
        return None
    columns = min(_COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    # One panel is as wide as the loss.
    width = 7 if columns == 1 else 4 * columns
    figure = Figure(figsize=(width, 4 if columns == 1 else 3 * rows), layout="constrained")
    for number, name in enumerate(names, start=1):
        axes = figure.add_subplot(rows, columns, number, xlabel="step", title=name)
        points = [(line["step"], line[name]) for line in evaluations if name in line]
        axes.plot(*zip(*points), "o-", color="C1", markersize=4)
        _mark(axes, lines, name, best)
    return figure


def write_png(figure: "Figure", path: Path) -> None:
    """Writes a picture; it appears as a whole."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with files.atomic_write(path) as partial:
        FigureCanvasAgg(figure).print_png(partial)


def _mark(axes: "Axes", lines: Lines, name: str, best: int | None) -> None:
    """A grid of whole steps, and a star at the best one's value."""
    axes.grid(alpha=0.3)
    axes.locator_params(axis="x", integer=True)
    for line in lines:
        if line["kind"] == "eval" and line["step"] == best and name in line:
            label = f"best, step {best}"
            axes.plot(
                line["step"], line[name], "*", color="C3", markersize=12, label=label, zorder=3
            )
            if name != "loss":
                axes.legend(fontsize="small")
