"""A compiled program as a graph of computations that loops, branches and fusions call."""

import dataclasses
import re
from collections.abc import Mapping

from spade_jax.aot.hlo_text import NAME, Instruction, parse


@dataclasses.dataclass(frozen=True)
class Program:
    """Optimised HLO.

    Attributes:
      computations: the instructions of each, by its name, in the order of their text.
      entry: the name of the computation that is run.
    """

    computations: Mapping[str, list[Instruction]]
    entry: str

    @classmethod
    def of(cls, text: str) -> "Program":
        """Of `compiled.as_text()`."""
        return cls(*parse(text))

    def body(self, loop: Instruction) -> str:
        """The name of a loop's body."""
        return _named("body", loop)

    def branches(self, conditional: Instruction) -> list[str]:
        """The names of the computations of which a conditional runs one."""
        named = re.search(r"branch_computations=\{([^}]*)\}", conditional.attributes)
        if named:
            return NAME.findall(named[1])
        return re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", conditional.attributes)

    def called(self, instruction: Instruction) -> str | None:
        """The name of what a fusion, a call or the start of an asynchronous one runs."""
        called = re.search(r"(?:calls|to_apply)=%?([\w.\-]+)", instruction.attributes)
        if called and instruction.kind in ("fusion", "call", "async-start"):
            return called[1]
        return None

    def trips(self, loop: Instruction, beside: Mapping[str, Instruction]) -> int:
        """How often the body of a loop runs; 1 where that is not known.

        Args:
          beside: the instructions of the computation that the loop is in, by name.
        """
        known = re.search(r'known_trip_count\W+n"?\W+(\d+)', loop.attributes)
        if known:
            return int(known[1])
        inside = {i.name: i for i in self.computations[_named("condition", loop)]}
        for compare in inside.values():
            if compare.kind == "compare" and "direction=LT" in compare.attributes:
                counter, limit = (inside[name] for name in compare.operands)
                index = re.search(r"index=(\d+)", counter.attributes)
                if limit.kind == "constant" and index:
                    at = int(index[1])
                    step = self._step(loop, at)
                    return max(0, -(-(int(limit.literal) - _begin(loop, at, beside)) // step))
        return 1

    def _step(self, loop: Instruction, index: int) -> int:
        """What the body of a loop adds to its counter: more than 1 where XLA has unrolled it."""
        inside = {i.name: i for i in self.computations[self.body(loop)]}
        *_, root = inside.values()
        at = inside.get(root.operands[index]) if root.kind == "tuple" else None
        step = 0
        while at is not None and at.kind in ("add", "copy"):
            operands = [inside[name] for name in at.operands if name in inside]
            step += sum(int(o.literal) for o in operands if o.kind == "constant")
            at = next((o for o in operands if o.kind != "constant"), None)
        return max(1, step)


def _named(attribute: str, instruction: Instruction) -> str:
    found = re.search(rf"{attribute}=%?([\w.\-]+)", instruction.attributes)
    assert found is not None
    return found[1]


def _begin(loop: Instruction, index: int, beside: Mapping[str, Instruction]) -> int:
    """What a loop counts from: 0 unless a constant says otherwise."""
    initial = beside.get(loop.operands[0])
    if initial is not None and initial.kind == "tuple":
        first = beside.get(initial.operands[index])
        if first is not None and first.kind == "constant":
            return int(first.literal)
    return 0
