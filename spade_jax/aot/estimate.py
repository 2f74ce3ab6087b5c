"""How long a TPU takes for a compiled program, by its compiler's estimates, and for what in it.

The compiler writes beside an instruction how many cycles it expects it to take. Their sum, loops as
often as they run and of a conditional the dearest branch, is the time of all computations. Left out
are what has no estimate (such as copies that run beside the computations), gaps between
instructions, and waiting for other devices: see `links`.

Which place of the model each belongs to says `origins`.
"""

import dataclasses
from collections.abc import Iterable, Mapping

from spade_jax.aot.hlo import KINDS
from spade_jax.aot.hlo_program import Program
from spade_jax.aot.hlo_text import Instruction, Shape
from spade_jax.aot.kernels import Bundles, Kernel, kernel_of
from spade_jax.aot.origins import Origins, phase_of, place_or_rest

# Where a number of cycles is from.
ESTIMATE, BUNDLES, ONE_ROUND, DECLARED = "estimate", "bundles", "one round", "declared"


@dataclasses.dataclass(frozen=True)
class Work:
    """What one instruction takes in a run of a program.

    Attributes:
      times: how often it runs.
      cycles: of one time; None where nothing says.
      source: of `cycles`: ESTIMATE is the compiler's, BUNDLES counts a kernel's scheduled code,
        and so does ONE_ROUND, with one round only of loops whose number of rounds is not known;
        DECLARED is the estimate that a kernel brings along.
      place: in the model, or `origins.ELSEWHERE` or `origins.UNKNOWN`.
      phase: of `origins.PHASES`.
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


def work(program: Program, bundles: Mapping[Kernel, Bundles]) -> list[Work]:
    """All that takes time, or may, in a run of a program but its collectives.

    Args:
      bundles: of kernels by their scheduled code, where they are known.
    """
    return _Walk(program, bundles).of(program.entry, 1, "")


class _Walk:
    def __init__(self, program: Program, bundles: Mapping[Kernel, Bundles]):
        self.program, self.bundles = program, bundles
        self.origins = Origins(program)

    def of(self, name: str, times: int, around: str) -> list[Work]:
        """Of a computation that runs so often, in what belongs to this `op_name`."""
        program, found = self.program, []
        beside = {i.name: i for i in program.computations[name]}
        for instruction in beside.values():
            if instruction.kind in ("while", "conditional", "call"):
                origin = self.origins.of(name, instruction, around)
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
                    origin = self.origins.of(name, instruction, around)
                    found.append(
                        Work(
                            instruction.name,
                            instruction.kind,
                            instruction.shapes,
                            times,
                            cycles,
                            source,
                            place_or_rest(origin),
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
            bundles = self.bundles[kernel]
            return bundles.cycles, BUNDLES if bundles.all_rounds else ONE_ROUND
        return instruction.estimated_cycles, DECLARED


def _is_collective(instruction: Instruction) -> bool:
    kind = instruction.kind.removesuffix("-start").removesuffix("-done")
    return kind in (*KINDS, "send", "recv")


def total_cycles(parts: Iterable[Work]) -> int:
    """Of all parts that have some."""
    return sum(part.all_cycles for part in parts)
