"""How long each implementation of each operation takes."""

import dataclasses
from collections.abc import Callable, Sequence

from benchmarks import timing
from benchmarks.accelerator.cases import Case
from benchmarks.accelerator.compiling import Attempt, attempt

FORWARD, BOTH = "forward", "forward + backward"
# Of the matmuls of a forward pass; the backward pass has two for each of them, and what an
# implementation computes again is not counted.
MATMULS = {FORWARD: 1, BOTH: 3}
_ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Time:
    """Of one implementation of one case.

    Attributes:
      direction: FORWARD or BOTH.
      milliseconds: None where it did not run; `reason` then says why.
      teraflops: TFLOP/s of what the result needs.
      temporary_mib: MiB that the program needs beside arguments and results.
      ratio: how many times as long as the reference it takes.
    """

    case: str
    implementation: str
    direction: str
    milliseconds: float | None = None
    teraflops: float | None = None
    temporary_mib: float | None = None
    ratio: float | None = None
    reason: str = ""


def time_all(cases: Sequence[Case], shortest: float, say: Callable[[str], None]) -> list[Time]:
    """Compiles all programs side by side, and then has those of a case take turns.

    Args:
      shortest: as of `timing.run_in_turns`.
    """
    begun = [
        (case, direction, _attempts(case, direction))
        for case in cases
        for direction in (FORWARD, BOTH)
    ]
    for *_, tried in begun:
        for each in tried.values():
            each.program()
    say(f"operations: {sum(len(tried) for *_, tried in begun)} programs compiled")
    found = []
    for case, direction, tried in begun:
        times = _time(case, direction, tried, shortest)
        found += times
        words = (
            f"{each.implementation} {f'{each.milliseconds:.3f} ms' if each.milliseconds else '-'}"
            for each in times
        )
        say(f"{case.title}, {direction}: {', '.join(words)}")
    return found


def _attempts(case: Case, direction: str) -> dict[str, Attempt]:
    make = case.forward if direction == FORWARD else case.gradient
    arguments = (case.cotangent, *case.arguments.values())
    return {name: attempt(make(name), arguments) for name in case.operation.implementations}


def _time(case: Case, direction: str, tried: dict[str, Attempt], shortest: float) -> list[Time]:
    programs = {name: each.program() for name, each in tried.items()}
    arguments = (case.cotangent, *case.arguments.values())
    compiled = {}
    for name, program in programs.items():
        if program is None:
            continue
        try:
            program(*arguments)
        # One that the device cannot launch must not keep the others from running.
        except Exception as error:
            tried[name].fail(error)
        else:
            compiled[name] = program
    measured = timing.run_in_turns(compiled, arguments, _ROUNDS, shortest)
    reference = measured.get("xla")
    found = []
    for name, each in tried.items():
        if name not in measured:
            found.append(Time(case.title, name, direction, reason=each.reason))
            continue
        measurement = measured[name]
        seconds = measurement.median
        found.append(
            Time(
                case.title,
                name,
                direction,
                None if seconds is None else 1e3 * seconds,
                None if seconds is None else MATMULS[direction] * case.flops / seconds / 1e12,
                measurement.temporary_bytes / 2**20,
                None if reference is None else measurement.slowdown(reference),
                "" if seconds is not None else "too large for the device",
            )
        )
    return found
