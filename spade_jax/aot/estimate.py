"""How long a TPU takes for a compiled program, by its compiler's estimates, and for what in it.

The compiler writes beside an instruction how many cycles it expects it to take. Their sum, loops as
often as they run and of a conditional the dearest branch, is the time of all computations. Left out
are what has no estimate (such as copies that run beside the computations), gaps between
instructions, and waiting for other devices: see `links`.

Which place of the model an instruction belongs to says its `op_name` (`spade_jax.places`): of a
fusion with a matmul that of the matmul. What the compiler made by itself, copies above all, belongs
to what it feeds, or else to what feeds it.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping

from spade_jax.aot.hlo import KINDS
from spade_jax.aot.hlo_program import Program
from spade_jax.aot.hlo_text import Instruction, Shape
from spade_jax.aot.kernels import Kernel, kernel_of
from spade_jax.places import place_of

# Of what the program says where it is from, but no place; and of what it does not.
ELSEWHERE = "rest of the step"
UNKNOWN = "not attributed"
# "recomputed" is in the backward pass what a rematerialisation policy does not keep; "" is neither
# forward nor backward, as the optimiser is.
PHASES = ("forward", "recomputed", "backward", "")
# Where a number of cycles is from.
ESTIMATE, BUNDLES, DECLARED = "estimate", "bundles", "declared"
# What hands values on and computes nothing.
_PASSES = (
    "tuple",
    "get-tuple-element",
    "bitcast",
    "copy",
    "copy-start",
    "copy-done",
    "opt-barrier",
)
_MATMULS = ("dot", "convolution")
_FAR, _FEW = 12, 16


@dataclasses.dataclass(frozen=True)
class Work:
    """What one instruction takes in a run of a program.

    Attributes:
      times: how often it runs.
      cycles: of one time; None where nothing says.
      source: of `cycles`: ESTIMATE is the compiler's, BUNDLES counts a kernel's scheduled code,
        DECLARED is the estimate that a kernel brings along.
      place: in the model, or ELSEWHERE or UNKNOWN.
      phase: of PHASES.
    """

    name: str
    kind: str
    shapes: tuple[Shape, ...]
    times: int
    cycles: int | None
    source: str
    place: str
    phase: str

    @property
    def all_cycles(self) -> int:
        return self.times * (self.cycles or 0)


def kernels(program: Program) -> set[Kernel]:
    """The Mosaic kernels that a program calls."""
    found = (
        kernel_of(instruction, {i.name: i for i in inside})
        for inside in program.computations.values()
        for instruction in inside
    )
    return {kernel for kernel in found if kernel is not None}


def work(program: Program, bundles: Mapping[Kernel, int]) -> list[Work]:
    """All that takes time, or may, in a run of a program but its collectives.

    Args:
      bundles: cycles of kernels by their scheduled code, where they are known.
    """
    return _Walk(program, bundles).of(program.entry, 1, "")


class _Walk:
    def __init__(self, program: Program, bundles: Mapping[Kernel, int]):
        self.program, self.bundles = program, bundles
        self.users: dict[str, dict[str, list[Instruction]]] = {}

    def of(self, name: str, times: int, around: str) -> list[Work]:
        """Of a computation that runs so often, in what belongs to this `op_name`."""
        program, found = self.program, []
        beside = {i.name: i for i in program.computations[name]}
        for instruction in beside.values():
            if instruction.kind in ("while", "conditional", "call"):
                origin = self._origin(name, instruction, beside, around)
            if instruction.kind == "while":
                trips = program.trips(instruction, beside)
                found += self.of(program.body(instruction), times * trips, origin)
            elif instruction.kind == "conditional":
                branches = (self.of(b, times, origin) for b in program.branches(instruction))
                found += max(branches, key=total_cycles)
            elif instruction.kind == "call":
                called = program.called(instruction)
                assert called is not None
                found += self.of(called, times, origin)
            elif _is_collective(instruction):
                continue
            else:
                cycles, source = self._cycles(instruction, beside)
                if source:
                    origin = self._origin(name, instruction, beside, around)
                    found.append(
                        Work(
                            instruction.name,
                            instruction.kind,
                            instruction.shapes,
                            times,
                            cycles,
                            source,
                            _place(origin),
                            phase_of(origin),
                        )
                    )
        return found

    def _cycles(
        self, instruction: Instruction, beside: Mapping[str, Instruction]
    ) -> tuple[int | None, str]:
        """Of one run, and where that is from; "" of what takes no time that anyone knows of."""
        kernel = kernel_of(instruction, beside)
        if kernel is None:
            cycles = instruction.estimated_cycles
            return cycles, "" if cycles is None else ESTIMATE
        if kernel in self.bundles:
            return self.bundles[kernel], BUNDLES
        return instruction.estimated_cycles, DECLARED

    def _origin(
        self, name: str, instruction: Instruction, beside: Mapping[str, Instruction], around: str
    ) -> str:
        """The `op_name` that says where an instruction belongs."""
        for origin in self._origins(name, instruction, beside):
            if place_of(origin) is not None:
                return origin
        return instruction.op_name if place_of(around) is None else around

    def _origins(
        self, name: str, instruction: Instruction, beside: Mapping[str, Instruction]
    ) -> Iterator[str]:
        """The `op_name`s that may say where an instruction belongs, the best first."""
        yield from self._own(instruction)
        if instruction.op_name.startswith("jit("):
            return
        within = collections.Counter(i.op_name for i in self._inside(instruction))
        yield from (origin for origin, _ in within.most_common() if place_of(origin))
        if name not in self.users:
            users = self.users.setdefault(name, {})
            for other in beside.values():
                for operand in other.operands:
                    users.setdefault(operand, []).append(other)
        yield from self._near(
            instruction, lambda i: self.users[name].get(i.name, ()) if _is_array(i) else ()
        )
        yield from self._near(
            instruction, lambda i: [beside[o] for o in i.operands if _is_array(beside.get(o))]
        )

    def _own(self, instruction: Instruction) -> Iterator[str]:
        """Of the matmuls in it, and its own."""
        yield from (i.op_name for i in self._inside(instruction) if i.kind in _MATMULS)
        yield instruction.op_name

    def _near(
        self, start: Instruction, beyond: Callable[[Instruction], Iterable[Instruction]]
    ) -> Iterator[str]:
        """Of the neighbours in one direction, the nearest first, and of theirs where they only
        hand values on."""
        seen, here = {start.name}, [start]
        for _ in range(_FAR):
            near = [i for one in here for i in beyond(one) if i.name not in seen]
            seen.update(i.name for i in near)
            for instruction in near:
                yield from self._own(instruction)
            here = [i for i in near if i.op_name == "" or i.kind in _PASSES]
            # Not through the loops of a model, in which all comes together.
            here = [i for i in here if len(i.shapes) <= _FEW]

    def _inside(self, instruction: Instruction) -> Iterator[Instruction]:
        called = self.program.called(instruction)
        for inner in self.program.computations[called] if called else ():
            yield inner
            yield from self._inside(inner)


def _is_array(instruction: Instruction | None) -> bool:
    """Whether it gives more than a number: counters of loops are shared by what is far apart."""
    return instruction is not None and any(dims for _, dims in instruction.shapes)


def _is_collective(instruction: Instruction) -> bool:
    kind = instruction.kind.removesuffix("-start").removesuffix("-done")
    return kind in (*KINDS, "send", "recv")


def _place(op_name: str) -> str:
    return place_of(op_name) or (ELSEWHERE if op_name.startswith("jit(") else UNKNOWN)


def phase_of(op_name: str) -> str:
    """Of PHASES."""
    if "rematted_computation" in op_name:
        return "recomputed"
    if "transpose(" in op_name:
        return "backward"
    return "forward" if "jvp(" in op_name else ""


def total_cycles(parts: Iterable[Work]) -> int:
    """Of all parts that have some."""
    return sum(part.all_cycles for part in parts)
