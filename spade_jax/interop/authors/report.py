"""What becomes of every name in a state dict of the authors'."""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

from rich.table import Table as ScreenTable

from spade_jax.config import ModelConfig, RunError
from spade_jax.interop import names
from spade_jax.interop.authors.pairs import PAD_ID, Kind, Pair, Shape, table


@dataclasses.dataclass(frozen=True)
class Report:
    """Of a comparison of names.

    Attributes:
      mapped: what becomes a parameter of ours, with the shape of theirs.
      kept: names of what has no place in our model and is kept for the way back, and why.
      left: names that nobody asked for.
      missing: names that should be there.
      notes: what else is to be known, a sentence each.
    """

    mapped: tuple[tuple[Pair, Shape], ...]
    kept: dict[str, str]
    left: tuple[str, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def table(self) -> ScreenTable:
        """A line for each name."""
        screen = ScreenTable(title="The authors' weights", title_justify="left")
        for column in ("theirs", "shape", "ours", "how"):
            screen.add_column(column)
        for pair, shape in self.mapped:
            screen.add_row(pair.theirs, " x ".join(map(str, shape)), pair.ours, pair.how.name)
        for name, why in self.kept.items():
            screen.add_row(name, "", "kept", why)
        for name in self.left:
            screen.add_row(name, "", "left", "no place for it")
        for name in self.missing:
            screen.add_row(name, "", "missing", "")
        return screen

    def check(self, allow_left: Sequence[str]) -> None:
        """Raises RunError where names are missing, or left that no pattern allows."""
        if self.missing:
            raise RunError(
                f"weights: {len(self.missing)} of {len(self.mapped) + len(self.missing)} arrays "
                f"are missing, such as {self.missing[0]}; bring a whole state dict, or the "
                "settings that it was made with"
            )
        left = [n for n in self.left if not any(re.fullmatch(p, n) for p in allow_left)]
        if left:
            raise RunError(
                f"weights: hold {len(left)} arrays that this model has no place for, such as "
                f"{left[0]}; name them in allow_left to keep them aside"
            )


def compare(
    shapes: Mapping[str, Shape], kind: Kind, model: ModelConfig, *, pad_id: int = PAD_ID
) -> Report:
    """Of a state dict with these shapes.

    Raises:
      RunError: an array has another shape than the model says.
    """
    known = table(kind, model, pad_id=pad_id)
    expected = check_shapes(shapes, kind, model)
    pairs = {pair.theirs: pair for pair in known.pairs}
    kept = {name: "the form of C" for name in known.lengths.values() if name in shapes}
    kept |= {n: f"the same as {same}" for n, same in known.tied.items() if n in shapes}
    kept |= {name: "no parameter" for name in known.buffers if name in shapes}
    return Report(
        mapped=tuple((p, expected[p.theirs]) for p in known.pairs if p.theirs in shapes),
        kept=kept,
        left=tuple(sorted(shapes.keys() - pairs.keys() - kept.keys())),
        missing=tuple(name for name in expected if name not in shapes),
    )


def check_shapes(shapes: Mapping[str, Shape], kind: Kind, model: ModelConfig) -> dict[str, Shape]:
    """The shapes that a state dict of this model has.

    Raises:
      RunError: an array has another one.
    """
    known = table(kind, model)
    ours = our_shapes(model)
    expected = {pair.theirs: pair.how.shape(ours[pair.ours]) for pair in known.pairs}
    expected |= dict.fromkeys(known.lengths.values(), ())
    also = {name: expected[same] for name, same in known.tied.items() if name in shapes}
    for name, shape in (expected | also).items():
        found = shapes.get(name)
        if found is not None and tuple(found) != shape:
            raise RunError(
                f"{name}: is {list(found)} in the file, and {list(shape)} by its settings; bring "
                "the settings that it was made with"
            )
    return expected


def our_shapes(model: ModelConfig) -> dict[str, Shape]:
    """Of our parameters, by layer."""
    return {name: leaf.shape for name, leaf in names.shapes(model).items()}


def layers_in(shapes: Iterable[str], pattern: str) -> int:
    """The first number that no name of this pattern has."""
    found = {int(match[1]) for name in shapes if (match := re.fullmatch(pattern, name))}
    return next(i for i in range(len(found) + 1) if i not in found)
