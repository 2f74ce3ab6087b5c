"""Lengths of sequences, drawn."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spade_jax import files
from spade_jax.data.preview.seen import Seen

FORMATS = (".png", ".svg")
_BINS = 40


def draw_lengths(sets: Sequence[Seen], path: Path) -> None:
    """A histogram for each sequence of each set, with a line at what a model takes.

    Args:
      path: of one of FORMATS.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    drawn = [(seen, sequences) for seen in sets for sequences in seen.sequences]
    figure = Figure(figsize=(8, 0.6 + 2.2 * len(drawn)), layout="constrained")
    for number, (seen, sequences) in enumerate(drawn, start=1):
        axes = figure.add_subplot(
            len(drawn), 1, number, title=f"{seen.title}, {sequences.name}", ylabel=seen.rows_are
        )
        # A few long ones would press all others together.
        ends = min(sequences.lengths), max(sequences.lengths) + 1
        axes.hist(sequences.lengths, np.geomspace(*ends, _BINS + 1).tolist(), color="#4477aa")
        label = f"{sequences.bound:,} tokens, by {sequences.setting}"
        axes.axvline(sequences.bound, color="#cc6677", label=label)
        axes.set_xscale("log")
        axes.legend(fontsize="small")
        axes.grid(alpha=0.3)
    figure.supxlabel("tokens")
    with files.atomic_write(path) as partial:
        if path.suffix == ".svg":
            FigureCanvasSVG(figure).print_svg(partial)
        else:
            FigureCanvasAgg(figure).print_png(partial)
