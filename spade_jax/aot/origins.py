"""Which place of the model the instructions of a compiled program belong to.

Their `op_name` says it (`spade_jax.places`): of a fusion with a matmul that of the matmul. What the
compiler made by itself, copies above all, belongs to what it feeds, or else to what feeds it.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping

from spade_jax.aot.hlo_program import Program
from spade_jax.aot.hlo_text import Instruction
from spade_jax.places import place_of

# Of what the program says where it is from, but no place; and of what it does not.
ELSEWHERE = "rest of the step"
UNKNOWN = "not attributed"
# "recomputed" is in the backward pass what a rematerialisation policy does not keep; "" is neither
# forward nor backward, as the optimiser is.
PHASES = ("forward", "recomputed", "backward", "")
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


class Origins:
    """The `op_name`s that say where instructions belong."""

    def __init__(self, program: Program):
        self.program = program
        self._beside: dict[str, dict[str, Instruction]] = {}
        self._users: dict[str, dict[str, list[Instruction]]] = {}

    def all(self) -> dict[str, str]:
        """Of each instruction that is run, by its name; none of those within fusions."""
        return dict(self._all(self.program.entry, ""))

    def _all(self, computation: str, around: str) -> Iterator[tuple[str, str]]:
        program = self.program
        for instruction in program.computations[computation]:
            origin = self.of(computation, instruction, around)
            yield instruction.name, origin
            called: list[str | None] = []
            if instruction.kind == "while":
                called = [program.body(instruction)]
            elif instruction.kind == "conditional":
                called = [*program.branches(instruction)]
            elif instruction.kind in ("call", "async-start"):
                called = [program.called(instruction)]
            for name in called:
                if name is not None:
                    yield from self._all(name, origin)

    def of(self, computation: str, instruction: Instruction, around: str) -> str:
        """Of an instruction of a computation that runs in what belongs to the `op_name` around."""
        for origin in self._candidates(computation, instruction):
            if place_of(origin) is not None:
                return origin
        return instruction.op_name if place_of(around) is None else around

    def _candidates(self, computation: str, instruction: Instruction) -> Iterator[str]:
        """The `op_name`s that may say where an instruction belongs, the best first."""
        yield from self._own(instruction)
        if instruction.op_name.startswith("jit("):
            return
        within = collections.Counter(i.op_name for i in self._inside(instruction))
        yield from (origin for origin, _ in within.most_common() if place_of(origin))
        beside, users = self._neighbours(computation)
        yield from self._near(instruction, lambda i: users.get(i.name, ()) if _is_array(i) else ())
        yield from self._near(
            instruction, lambda i: [beside[o] for o in i.operands if _is_array(beside.get(o))]
        )

    def _neighbours(
        self, computation: str
    ) -> tuple[Mapping[str, Instruction], Mapping[str, list[Instruction]]]:
        """The instructions of a computation, and what takes their values, by name."""
        if computation not in self._users:
            self._beside[computation] = {i.name: i for i in self.program.computations[computation]}
            users = self._users.setdefault(computation, {})
            for other in self._beside[computation].values():
                for operand in other.operands:
                    users.setdefault(operand, []).append(other)
        return self._beside[computation], self._users[computation]

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


def place_or_rest(op_name: str) -> str:
    """The place that an `op_name` names, or ELSEWHERE or UNKNOWN."""
    return place_of(op_name) or (ELSEWHERE if op_name.startswith("jit(") else UNKNOWN)


def phase_of(op_name: str) -> str:
    """Of PHASES."""
    if "rematted_computation" in op_name:
        return "recomputed"
    if "transpose(" in op_name:
        return "backward"
    return "forward" if "jvp(" in op_name else ""
