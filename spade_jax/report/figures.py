"""Pictures for a page, as text that stands in it."""

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # It takes its time to import.
    from matplotlib.figure import Figure

# Beyond so many classes their counts are in the table alone.
_WRITTEN_CLASSES = 12
_NAME = 18


def data_uri(figure: "Figure") -> str:
    """A figure as the source of an image, in SVG: equal ones alike, and no file is needed."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    file = io.BytesIO()
    with rc_context({"svg.hashsalt": "report"}):
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}"


def confusion_figure(labels: Sequence[str], counts: np.ndarray) -> "Figure":
    """True classes by predicted ones, each row in shares of its class.

    Args:
      counts: int [true class, predicted class]; a last column is of what is no label, and drawn
        where there is such.
    """
    from matplotlib.figure import Figure

    if not counts[:, -1].any():
        counts = counts[:, :-1]
    names = [_short(label) for label in (*labels, "no label")]
    columns = counts.shape[1]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    cell = max(0.35, 0.75 - 0.04 * columns)
    size = (min(3 + cell * columns, 10), min(1.75 + cell * len(labels), 9))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot(xlabel="predicted", ylabel="true")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    if columns <= _WRITTEN_CLASSES + 1:
        axes.set_xticks(range(columns), names[:columns], rotation=45, ha="right", parse_math=False)
        axes.set_yticks(range(len(labels)), names[: len(labels)], parse_math=False)
        for (row, column), count in np.ndenumerate(counts):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=color)
    return figure


def scatter_figure(true: np.ndarray, predicted: np.ndarray) -> "Figure":
    """Predicted numbers over true ones, and the line where both are the same. Those that are far
    from all true ones stand at the edge."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot(xlabel="true", ylabel="predicted")
    ends = [float(true.min()), float(true.max())]
    beyond = (ends[1] - ends[0]) / 2 or 1.0
    shown = np.clip(predicted, ends[0] - beyond, ends[1] + beyond)
    # As pixels: thousands of points would make a large page.
    axes.scatter(true, shown, s=10, alpha=0.4, linewidths=0, rasterized=True)
    axes.plot(ends, ends, "--", color="gray", label="predicted = true")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    return figure


def _short(label: str) -> str:
    return label if len(label) <= _NAME else f"{label[: _NAME - 1]}…"
