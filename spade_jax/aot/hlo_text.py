"""The text of optimised HLO: instructions, and the devices that a collective joins."""

import dataclasses
import math
import re

import numpy as np

_BYTES = {"pred": 1, "bf16": 2, "c64": 8, "c128": 16, "s4": 0.5, "u4": 0.5}
_SHAPE = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z\-\d]*)\((.*)$")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
NAME = re.compile(r"%([\w.\-]+)")
_NO_CYCLES = 2**63 - 1

Shape = tuple[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line.

    Attributes:
      shapes: of what it gives: one, or those of a tuple.
      kind: such as "dot".
      operands: names of the instructions whose values it takes.
      literal: what stands between its brackets: of a constant, its value.
      attributes: what stands behind them.
    """

    name: str
    shapes: tuple[Shape, ...]
    kind: str
    operands: tuple[str, ...]
    literal: str
    attributes: str

    @property
    def estimated_cycles(self) -> int | None:
        """That a TPU takes for it, as its compiler thinks; None where it does not say."""
        cycles = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
        return None if cycles is None or int(cycles[1]) == _NO_CYCLES else int(cycles[1])

    @property
    def op_name(self) -> str:
        """Where it comes from in the model, as XLA names it; empty where it does not."""
        name = re.search(r'op_name="([^"]*)"', self.attributes)
        return name[1] if name else ""


def parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """The instructions of each computation, and the name of the one that is run."""
    computations: dict[str, list[Instruction]] = {}
    entry = ""
    inside: list[Instruction] = []
    for line in text.splitlines():
        if line and not line[0].isspace():
            if head := _COMPUTATION.match(line):
                inside = computations[head[2]] = []
                entry = head[2] if head[1] else entry
        elif match := _INSTRUCTION.match(line):
            name, result, kind, rest = match.groups()
            end = _closing(rest)
            inside.append(
                Instruction(
                    name,
                    tuple((dtype, integers(dims)) for dtype, dims in _SHAPE.findall(result)),
                    kind,
                    tuple(NAME.findall(rest[:end])) if kind != "constant" else (),
                    rest[:end],
                    rest[end:],
                )
            )
    return computations, entry


def _closing(text: str) -> int:
    depth = 1
    for match in re.finditer(r"[()]", text):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return match.start()
    return len(text)


def device_groups(attributes: str, devices: int) -> np.ndarray:
    """The groups of a collective's attributes, [groups, devices of each]; of a permute, the pairs.

    Raises:
      ValueError: a notation that is not known.
    """
    if pairs := re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", attributes):
        return np.array(re.findall(r"(\d+),(\d+)", pairs[1]), int).reshape(-1, 2)
    if listed := re.search(r"replica_groups=\{((?:\{[\d,]*\},?)*)\}", attributes):
        rows = [row.split(",") for row in re.findall(r"\{([\d,]+)\}", listed[1])]
        return np.array(rows, int) if rows else np.arange(devices)[None]
    if tiled := re.search(
        r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes
    ):
        shape, dims = integers(tiled[1]), integers(tiled[2])
        order = integers(tiled[3]) if tiled[3] else tuple(range(len(dims)))
        return np.arange(math.prod(dims)).reshape(dims).transpose(order).reshape(shape)
    if named := re.search(
        r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? "
        r"\{([^}]*)\}",
        attributes,
    ):
        axes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
        over = re.findall(r"'(\w+)'(?:,|$)", named[4])
        if over and named[4].count("'") == 2 * len(over):
            dims = integers(named[2]) if named[2] else (math.prod(axes.values()),)
            order = integers(named[3]) if named[3] else tuple(range(len(dims)))
            ids = np.arange(math.prod(dims)).reshape(dims).transpose(order)
            ids = ids.reshape(tuple(axes.values()))
            last = [list(axes).index(name) for name in over]
            ids = np.moveaxis(ids, last, range(-len(last), 0))
            return ids.reshape(-1, math.prod(axes[name] for name in over))
    raise ValueError(f"no device groups in {attributes[:200]!r}")


def shape_bytes(shape: Shape) -> float:
    """Of an array; half a byte for each number of four bits."""
    name, dims = shape
    bits = re.search(r"\d+", name)
    size = _BYTES.get(name, int(bits[0]) / 8 if bits else 0)
    return size * math.prod(dims)


def integers(text: str) -> tuple[int, ...]:
    """Of `1,2,3`."""
    return tuple(int(number) for number in text.split(",") if number)
