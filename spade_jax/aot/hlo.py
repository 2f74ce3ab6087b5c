"""What a compiled program does on one device, counted from its optimised HLO: the floating-point
operations of its matmuls, and its collectives with their bytes and mesh axes.

XLA's own `cost_analysis` counts the body of a loop once, and layers run in loops.
"""

import dataclasses
import math
import re
from collections.abc import Mapping

import numpy as np

from spade_jax.aot.hlo_text import (
    NAME,
    Instruction,
    device_groups,
    integers,
    parse,
    shape_bytes,
)

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "collective-permute", "all-to-all")
# In place of mesh axes: what goes from one slice of TPUs to another, over the hosts' network.
SLICES = ("slices",)


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective instruction.

    Attributes:
      kind: of KINDS.
      axes: the mesh axes that its groups of devices run over, or SLICES.
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


def count(text: str, mesh: Mapping[str, int]) -> Cost:
    """The cost of a program.

    Of a conditional the branch with the most operations counts. A loop whose length is not known
    counts once.

    Args:
      text: optimised HLO, `compiled.as_text()`.
      mesh: sizes of the mesh axes, by name, in the order of the program's devices.
    """
    computations, entry = parse(text)
    return _Counter(computations, mesh).cost(entry)


def group_axes(groups: np.ndarray, mesh: Mapping[str, int]) -> tuple[str, ...]:
    """The mesh axes along which the devices of a group differ.

    Args:
      groups: positions of devices in the flattened mesh, [groups, devices of each].
    """
    places = np.unravel_index(groups, tuple(mesh.values()))
    return tuple(name for name, at in zip(mesh, places) if (at != at[:, :1]).any())


class _Counter:
    def __init__(self, computations: Mapping[str, list[Instruction]], mesh: Mapping[str, int]):
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
            elif kind == "send" and "_xla_megascale_transfer_type" in instruction.attributes:
                parts = Cost(0, ((_between_slices(instruction, types), 1),))
            elif kind == "dot" or "__cublas$" in instruction.attributes:
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

    def _called(self, instruction: Instruction, types: Mapping[str, Instruction]) -> Cost:
        attributes = instruction.attributes
        if instruction.kind == "while":
            body = re.search(r"body=%?([\w.\-]+)", attributes)
            assert body is not None
            times, inside = self._trips(instruction, types), self.cost(body[1])
            return Cost(times * inside.flops, tuple((c, n * times) for c, n in inside.collectives))
        if instruction.kind == "conditional":
            named = re.search(r"branch_computations=\{([^}]*)\}", attributes)
            branches = (
                NAME.findall(named[1])
                if named
                else re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", attributes)
            )
            return max((self.cost(branch) for branch in branches), key=lambda cost: cost.flops)
        called = re.search(r"(?:calls|to_apply)=%?([\w.\-]+)", attributes)
        if called and instruction.kind in ("fusion", "call", "async-start"):
            return self.cost(called[1])
        return Cost(0, ())

    def _trips(self, loop: Instruction, types: Mapping[str, Instruction]) -> int:
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

    def _step(self, loop: Instruction, index: int) -> int:
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
        self, this: Instruction, kind: str, types: Mapping[str, Instruction], within: str
    ) -> Collective | None:
        groups = device_groups(this.attributes, math.prod(self.mesh.values()))
        axes = group_axes(groups, self.mesh)
        if not axes:
            return None
        given = [shape for name in this.operands if name in types for shape in types[name].shapes]
        size = sum(map(shape_bytes, given)) * (groups.shape[1] if kind == "all-gather" else 1)
        channel = re.search(r"channel_id=(\d+)", this.attributes)
        return Collective(
            # On TPUs a reduce-scatter is an all-reduce in a fusion of this name.
            kind="reduce-scatter" if within.startswith("all-reduce-scatter") else kind,
            axes=axes,
            bytes=int(size),
            shapes=tuple(dims for _, dims in this.shapes),
            source=_source(this),
            channel=channel[1] if channel else "",
        )


def _between_slices(send: Instruction, types: Mapping[str, Instruction]) -> Collective:
    """A collective among slices, which the compiler leaves to the hosts: they take what is sent."""
    transfer = re.search(r'_xla_megascale_transfer_type="(\w+)"', send.attributes)
    assert transfer is not None
    given = types[send.operands[0]].shapes
    return Collective(
        kind=transfer[1].lower().replace("_", "-"),
        axes=SLICES,
        bytes=int(sum(map(shape_bytes, given))),
        shapes=tuple(dims for _, dims in given),
        source=_source(send),
        channel="",
    )


def _source(instruction: Instruction) -> str:
    name = re.search(r'op_name="([^"]*)"', instruction.attributes)
    return name[1] if name else ""


def _begin(loop: Instruction, index: int, types: Mapping[str, Instruction]) -> int:
    """What a loop counts from: 0 unless a constant says otherwise."""
    initial = types.get(loop.operands[0])
    if initial is not None and initial.kind == "tuple":
        first = types.get(initial.operands[index])
        if first is not None and first.kind == "constant":
            return int(first.literal)
    return 0


def _dot_flops(dot: Instruction, types: Mapping[str, Instruction]) -> int:
    # GPUs leave matmuls to cuBLAS, and say in JSON which axes are summed over.
    contracted = re.search(r'lhs_contracting_dim(?:s=\{|ensions":\[)([\d,"]*)[\]}]', dot.attributes)
    left = types[dot.operands[0]].shapes[0][1]
    over = integers(contracted[1].replace('"', "")) if contracted else ()
    return 2 * math.prod(dot.shapes[0][1]) * math.prod(left[axis] for axis in over)


def _convolution_flops(this: Instruction, types: Mapping[str, Instruction]) -> int:
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
