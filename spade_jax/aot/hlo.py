"""What a compiled program does on one device, counted from its optimised HLO: the floating-point
operations of its matmuls, and its collectives with their bytes and mesh axes.

XLA's own `cost_analysis` counts the body of a loop once, and layers run in loops.
"""

import dataclasses
import math
import re
from collections.abc import Mapping

import numpy as np

from spade_jax.aot.hlo_program import Program
from spade_jax.aot.hlo_text import Instruction, device_groups, integers, shape_bytes

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
      channel: XLA's number of it; parts of an asynchronous one have the same. None of what has
        no parts.
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
    """`cost` of the text of optimised HLO, `compiled.as_text()`."""
    return cost(Program.of(text), mesh)


def cost(program: Program, mesh: Mapping[str, int]) -> Cost:
    """The cost of a program.

    Of a conditional the branch with the most operations counts. A loop whose length is not known
    counts once.

    Args:
      mesh: sizes of the mesh axes, by name, in the order of the program's devices.
    """
    return _Counter(program, mesh).cost(program.entry)


def group_axes(groups: np.ndarray, mesh: Mapping[str, int]) -> tuple[str, ...]:
    """The mesh axes along which the devices of a group differ.

    Args:
      groups: positions of devices in the flattened mesh, [groups, devices of each].
    """
    places = np.unravel_index(groups, tuple(mesh.values()))
    return tuple(name for name, at in zip(mesh, places) if (at != at[:, :1]).any())


class _Counter:
    def __init__(self, program: Program, mesh: Mapping[str, int]):
        self.program, self.mesh = program, mesh
        self.known: dict[str, Cost] = {}

    def cost(self, name: str) -> Cost:
        if name not in self.known:
            self.known[name] = self._count(name)
        return self.known[name]

    def _count(self, name: str) -> Cost:
        flops = 0
        found: list[tuple[Collective, int]] = []
        fused: set[Collective] = set()
        types = {i.name: i for i in self.program.computations[name]}
        for instruction in self.program.computations[name]:
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
        program = self.program
        if instruction.kind == "while":
            times, inside = program.trips(instruction, types), self.cost(program.body(instruction))
            return Cost(times * inside.flops, tuple((c, n * times) for c, n in inside.collectives))
        if instruction.kind == "conditional":
            branches = map(self.cost, program.branches(instruction))
            return max(branches, key=lambda cost: cost.flops)
        called = program.called(instruction)
        return Cost(0, ()) if called is None else self.cost(called)

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
        # On TPUs a reduce-scatter is an all-reduce in a fusion of this name, whole, of whichever
        # channel.
        scatters = within.startswith("all-reduce-scatter")
        return Collective(
            kind="reduce-scatter" if scatters else kind,
            axes=axes,
            bytes=int(size),
            shapes=tuple(dims for _, dims in this.shapes),
            source=this.op_name,
            channel=channel[1] if channel and not scatters else "",
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
        source=send.op_name,
        channel="",
    )


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
