"""What a compiled program does on one device, counted from its optimised HLO: the floating-point
operations of its matmuls, and its collectives with their bytes and mesh axes.

XLA's own `cost_analysis` counts the body of a loop once, and layers run in loops.
"""

import dataclasses
import math
import re
from collections.abc import Mapping

import numpy as np

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "collective-permute", "all-to-all")

_BYTES = {"pred": 1, "bf16": 2, "c64": 8, "c128": 16, "s4": 0.5, "u4": 0.5}
_SHAPE = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z\-\d]*)\((.*)$")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_NAME = re.compile(r"%([\w.\-]+)")

Shape = tuple[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective instruction.

    Attributes:
      kind: of KINDS.
      axes: the mesh axes that its groups of devices run over.
      bytes: of the arrays that each device gives into it, or of an all-gather gets out of it.
      shapes: of the arrays that it gives out.
      source: where it comes from in the model, XLA's `op_name`.
      channel: XLA's number of it; parts of an asynchronous one have the same.
    """

    kind: str
    axes: tuple[str, ...]
    bytes: int
    shapes: tuple[tuple[int, ...], ...]
    source: str
    channel: str


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one device in one run.

    Attributes:
      flops: two for each multiplication in a matmul.
      collectives: each with how often it runs.
    """

    flops: int
    collectives: tuple[tuple[Collective, int], ...]


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    shapes: tuple[Shape, ...]
    kind: str
    operands: tuple[str, ...]
    literal: str
    attributes: str


def count(text: str, mesh: Mapping[str, int]) -> Cost:
    """The cost of a program.

    Of a conditional the branch with the most operations counts. A loop whose length is not known
    counts once.

    Args:
      text: optimised HLO, `compiled.as_text()`.
      mesh: sizes of the mesh axes, by name, in the order of the program's devices.
    """
    computations, entry = _parse(text)
    return _Counter(computations, mesh).cost(entry)


def group_axes(groups: np.ndarray, mesh: Mapping[str, int]) -> tuple[str, ...]:
    """The mesh axes along which the devices of a group differ.

    Args:
      groups: positions of devices in the flattened mesh, [groups, devices of each].
    """
    places = np.unravel_index(groups, tuple(mesh.values()))
    return tuple(name for name, at in zip(mesh, places) if (at != at[:, :1]).any())


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
        shape, dims = _integers(tiled[1]), _integers(tiled[2])
        order = _integers(tiled[3]) if tiled[3] else tuple(range(len(dims)))
        return np.arange(math.prod(dims)).reshape(dims).transpose(order).reshape(shape)
    if named := re.search(
        r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? "
        r"\{([^}]*)\}",
        attributes,
    ):
        axes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
        over = re.findall(r"'(\w+)'(?:,|$)", named[4])
        if over and named[4].count("'") == 2 * len(over):
            dims = _integers(named[2]) if named[2] else (math.prod(axes.values()),)
            order = _integers(named[3]) if named[3] else tuple(range(len(dims)))
            ids = np.arange(math.prod(dims)).reshape(dims).transpose(order)
            ids = ids.reshape(tuple(axes.values()))
            last = [list(axes).index(name) for name in over]
            ids = np.moveaxis(ids, last, range(-len(last), 0))
            return ids.reshape(-1, math.prod(axes[name] for name in over))
    raise ValueError(f"no device groups in {attributes[:200]!r}")


class _Counter:
    def __init__(self, computations: Mapping[str, list[_Instruction]], mesh: Mapping[str, int]):
        self.computations, self.mesh = computations, mesh
        self.known: dict[str, Cost] = {}

    def cost(self, name: str) -> Cost:
        if name not in self.known:
            self.known[name] = self._count(name)
        return self.known[name]

    def _count(self, name: str) -> Cost:
        flops = 0
        found: list[tuple[Collective, int]] = []
        fused: set[Collective] = set()
        types = {i.name: i for i in self.computations[name]}
        for instruction in self.computations[name]:
            kind = instruction.kind.removesuffix("-start")
            if kind in KINDS:
                one = self._collective(instruction, kind, types, within=name)
                parts = Cost(0, ((one, 1),) if one else ())
            elif kind == "dot":
                parts = Cost(_dot_flops(instruction, types), ())
            elif kind == "convolution":
                parts = Cost(_convolution_flops(instruction, types), ())
            else:
                parts = self._called(instruction, types)
            flops += parts.flops
            for collective, times in parts.collectives:
                # The parts of an asynchronous collective lie in several fusions beside each other.
                if kind == "fusion" and collective.channel:
                    part = dataclasses.replace(collective, shapes=())
                    if part in fused:
                        continue
                    fused.add(part)
                found.append((collective, times))
        return Cost(flops, tuple(found))

    def _called(self, instruction: _Instruction, types: Mapping[str, _Instruction]) -> Cost:
        attributes = instruction.attributes
        if instruction.kind == "while":
            body = re.search(r"body=%?([\w.\-]+)", attributes)
            assert body is not None
            times, inside = self._trips(instruction, types), self.cost(body[1])
            return Cost(times * inside.flops, tuple((c, n * times) for c, n in inside.collectives))
        if instruction.kind == "conditional":
            named = re.search(r"branch_computations=\{([^}]*)\}", attributes)
            branches = (
                _NAME.findall(named[1])
                if named
                else re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", attributes)
            )
            return max((self.cost(branch) for branch in branches), key=lambda cost: cost.flops)
        called = re.search(r"(?:calls|to_apply)=%?([\w.\-]+)", attributes)
        if called and instruction.kind in ("fusion", "call", "async-start"):
            return self.cost(called[1])
        return Cost(0, ())

    def _trips(self, loop: _Instruction, types: Mapping[str, _Instruction]) -> int:
        known = re.search(r'known_trip_count\W+n"?\W+(\d+)', loop.attributes)
        if known:
            return int(known[1])
        condition = re.search(r"condition=%?([\w.\-]+)", loop.attributes)
        assert condition is not None
        inside = {i.name: i for i in self.computations[condition[1]]}
        for compare in inside.values():
            if compare.kind == "compare" and "direction=LT" in compare.attributes:
                counter, limit = (inside[name] for name in compare.operands)
                index = re.search(r"index=(\d+)", counter.attributes)
                if limit.kind == "constant" and index:
                    at = int(index[1])
                    step = self._step(loop, at)
                    return max(0, -(-(int(limit.literal) - _begin(loop, at, types)) // step))
        return 1

    def _step(self, loop: _Instruction, index: int) -> int:
        """What the body of a loop adds to its counter: more than 1 where XLA has unrolled it."""
        body = re.search(r"body=%?([\w.\-]+)", loop.attributes)
        assert body is not None
        inside = {i.name: i for i in self.computations[body[1]]}
        *_, root = inside.values()
        at = inside.get(root.operands[index]) if root.kind == "tuple" else None
        step = 0
        while at is not None and at.kind in ("add", "copy"):
            operands = [inside[name] for name in at.operands if name in inside]
            step += sum(int(o.literal) for o in operands if o.kind == "constant")
            at = next((o for o in operands if o.kind != "constant"), None)
        return max(1, step)

    def _collective(
        self, this: _Instruction, kind: str, types: Mapping[str, _Instruction], within: str
    ) -> Collective | None:
        groups = device_groups(this.attributes, math.prod(self.mesh.values()))
        axes = group_axes(groups, self.mesh)
        if not axes:
            return None
        given = [shape for name in this.operands if name in types for shape in types[name].shapes]
        size = sum(map(_bytes, given)) * (groups.shape[1] if kind == "all-gather" else 1)
        source = re.search(r'op_name="([^"]*)"', this.attributes)
        channel = re.search(r"channel_id=(\d+)", this.attributes)
        return Collective(
            # On TPUs a reduce-scatter is an all-reduce in a fusion of this name.
            kind="reduce-scatter" if within.startswith("all-reduce-scatter") else kind,
            axes=axes,
            bytes=int(size),
            shapes=tuple(dims for _, dims in this.shapes),
            source=source[1] if source else "",
            channel=channel[1] if channel else "",
        )


def _begin(loop: _Instruction, index: int, types: Mapping[str, _Instruction]) -> int:
    """What a loop counts from: 0 unless a constant says otherwise."""
    initial = types.get(loop.operands[0])
    if initial is not None and initial.kind == "tuple":
        first = types.get(initial.operands[index])
        if first is not None and first.kind == "constant":
            return int(first.literal)
    return 0


def _dot_flops(dot: _Instruction, types: Mapping[str, _Instruction]) -> int:
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", dot.attributes)
    left = types[dot.operands[0]].shapes[0][1]
    over = _integers(contracted[1]) if contracted else ()
    return 2 * math.prod(dot.shapes[0][1]) * math.prod(left[axis] for axis in over)


def _convolution_flops(this: _Instruction, types: Mapping[str, _Instruction]) -> int:
    """TPUs write matmuls as convolutions: pairs that hit padding or holes are no operations."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", this.attributes)
    assert labels is not None
    left, right, out = (
        dict(zip(letters, dims))
        for letters, dims in zip(
            labels.groups(),
            [types[name].shapes[0][1] for name in this.operands[:2]] + [this.shapes[0][1]],
        )
    )
    window = re.search(r"window=\{([^}]*)\}", this.attributes)
    fields = dict(part.split("=") for part in window[1].split()) if window else {}

    def field(name: str, default: str) -> list[str]:
        return fields[name].split("x") if name in fields else [default] * len(spatial)

    spatial = [letter for letter in labels[1] if letter.isdigit()]
    pairs = 1
    settings = zip(
        sorted(spatial, key=int),
        field("stride", "1"),
        field("pad", "0_0"),
        field("lhs_dilate", "1"),
        field("rhs_dilate", "1"),
    )
    for letter, stride, pad, hole, spread in settings:
        steps = np.arange(out[letter])[:, None] * int(stride) - int(pad.split("_")[0])
        at = steps + np.arange(right[letter])[None] * int(spread)
        hit = (at >= 0) & (at % int(hole) == 0) & (at // int(hole) < left[letter])
        pairs *= int(hit.sum())
    # The kernel's input features are those of one group already.
    return 2 * pairs * out["b"] * out["f"] * right["i"]


def _bytes(shape: Shape) -> float:
    name, dims = shape
    bits = re.search(r"\d+", name)
    size = _BYTES.get(name, int(bits[0]) / 8 if bits else 0)
    return size * math.prod(dims)


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)


def _parse(text: str) -> tuple[dict[str, list[_Instruction]], str]:
    """The instructions of each computation, and the name of the one that is run."""
    computations: dict[str, list[_Instruction]] = {}
    entry = ""
    inside: list[_Instruction] = []
    for line in text.splitlines():
        if line and not line[0].isspace():
            if head := _COMPUTATION.match(line):
                inside = computations[head[2]] = []
                entry = head[2] if head[1] else entry
        elif match := _INSTRUCTION.match(line):
            name, result, kind, rest = match.groups()
            end = _closing(rest)
            inside.append(
                _Instruction(
                    name,
                    tuple((dtype, _integers(dims)) for dtype, dims in _SHAPE.findall(result)),
                    kind,
                    tuple(_NAME.findall(rest[:end])) if kind != "constant" else (),
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
