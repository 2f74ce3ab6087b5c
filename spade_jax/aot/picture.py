"""Where the time of a compiled step goes, drawn."""

from pathlib import Path
from typing import TYPE_CHECKING

from spade_jax import files

if TYPE_CHECKING:
    from spade_jax.aot.step_time import StepTime

FORMATS = (".png", ".svg")
# Of places; what is left shares one more.
_BARS = 14
_STYLES = {
    "forward": ("forward", "#4477aa"),
    "recomputed": ("computed again in the backward pass", "#88ccee"),
    "backward": ("backward", "#cc6677"),
    "": ("neither", "#999999"),
}


def draw_time(time: "StepTime", title: str, path: Path) -> None:
    """A bar for each place of the model, the longest on top, cut up by phase.

    Args:
      path: of one of FORMATS.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    bars = [(place.name, dict(place.phases)) for place in time.places[:_BARS]]
    if rest := time.places[_BARS:]:
        sums = {phase: sum(place.phases[phase] for place in rest) for phase in _STYLES}
        bars.append((f"{len(rest)} other places", sums))
    names = [name for name, _ in bars]
    figure = Figure(figsize=(8, 0.8 + 0.32 * (len(bars) + 1)), layout="constrained")
    axes = figure.add_subplot(xlabel="milliseconds a step, by the compiler's estimate", title=title)
    begin = [0.0] * len(bars)
    for phase, (label, colour) in _STYLES.items():
        width = [1e3 * phases[phase] for _, phases in bars]
        if any(width):
            axes.barh(names, width, left=begin, label=label, color=colour)
        begin = [left + more for left, more in zip(begin, width)]
    waiting = 1e3 * sum(time.collectives.values())
    if waiting:
        names.append("collectives")
        axes.barh(
            names[-1:],
            [waiting],
            color="none",
            edgecolor="#666666",
            hatch="///",
            label="hidden or not, at the links' speed",
        )
        begin.append(waiting)
    total = 1e3 * time.computations
    for name, end in zip(names, begin):
        axes.annotate(
            f" {end:,.3g} ({end / total:.0%})", (end, name), va="center", fontsize="small"
        )
    axes.set_xlim(0, 1.18 * max(begin))
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(fontsize="small", loc="lower right")
    with files.atomic_write(path) as partial:
        if path.suffix == ".svg":
            FigureCanvasSVG(figure).print_svg(partial)
        else:
            FigureCanvasAgg(figure).print_png(partial)
