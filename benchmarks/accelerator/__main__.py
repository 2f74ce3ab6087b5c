"""What an accelerator makes of the model: is it right, how fast is it, where does the time go.

python -m benchmarks.accelerator --help

In order of importance, each part only if there is time for it:

- every implementation of every operation against XLA's in float32, with all gradients;
- whole updates of base, where the time of one goes, and updates of other lengths;
- the time of every implementation of every operation.

The exit status is 1 where something computes false numbers, or fails. Of JAX, Flax and Optax
nothing else is needed: no data, no tokenizer, no TensorFlow.
"""

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.arguments import positive

if TYPE_CHECKING:
    from benchmarks.accelerator.sizes import Batch, Sizes

# Seconds that parts take on one H200 beside 16 cores, which compile most of them meanwhile.
TRACING, CORRECTNESS, UPDATES, BREAKDOWN, OPERATIONS = 5.0, 90.0, 15.0, 15.0, 45.0
# Updates that are traced, and seconds that a reading of the clock covers.
_TRACED, _SHORTEST = 3, 0.02


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accelerator",
        description=__doc__.partition("\n")[0],
        allow_abbrev=False,
    )
    parser.add_argument(
        "--budget",
        type=positive,
        default=290,
        metavar="SECONDS",
        help="begin nothing that would take longer; default: %(default)s",
    )
    parser.add_argument("--json", metavar="FILE", help="write the results there, too")
    parser.add_argument(
        "--small",
        action="store_true",
        help="a miniature, to see that all of it runs; always so on a CPU, which interprets the "
        "kernels of other platforms",
    )
    options = parser.parse_args(argv)
    if options.json:
        try:
            Path(options.json).write_text("{}\n")
        except OSError as error:
            parser.error(f"--json = {options.json!r}: {error.strerror}")
    return options


def main(argv: Sequence[str]) -> int:
    """Prints tables; returns the exit status."""
    options = parse(argv)
    # Only here, so that --help needs no JAX.
    import jax

    from benchmarks import timing
    from benchmarks.accelerator.budget import Budget
    from benchmarks.accelerator.sizes import BASE, SMALL
    from spade_jax.ops.dispatch import interpreted

    budget = Budget(options.budget)
    on_cpu = jax.default_backend() == "cpu"
    sizes = SMALL if options.small or on_cpu else BASE
    budget.say(timing.machine())
    measurements = Measurements(sizes, budget, options.json, 0.0 if on_cpu else _SHORTEST)
    with interpreted() if on_cpu else contextlib.nullcontext():
        measurements.run()
    return measurements.report()


class Measurements:
    """What has been measured so far.

    Attributes:
      results: lists of dataclasses, by the part that they are of.
    """

    def __init__(self, sizes: "Sizes", budget: Any, json_file: str | None, shortest: float):
        self.sizes, self.budget = sizes, budget
        self.json_file, self.shortest = json_file, shortest
        # A miniature takes no time worth planning.
        self.scale = 0.0 if sizes.miniature else 1.0
        self.results: dict[str, list[Any]] = {
            name: [] for name in ("correctness", "updates", "breakdown", "operations")
        }
        # The `updates.Update`s of each batch.
        self.begun: dict[Batch, list[Any]] = {}

    def run(self) -> None:
        """All parts, the most important ones first."""
        batches, run, scale = self.sizes.batches, self.budget.run, self.scale
        # They are compiled while implementations are checked; nothing is timed then.
        for batch in batches:
            run(f"tracing updates of {batch}", scale * TRACING, lambda b=batch: self.begin(b))
        run("correctness", scale * CORRECTNESS, self.check)
        for batch in batches:
            run(f"updates of {batch}", scale * UPDATES, lambda b=batch: self.update(b))
        for batch in batches:
            run(f"operations of {batch}", scale * OPERATIONS, lambda b=batch: self.time(b))

    def begin(self, batch: "Batch") -> None:
        """By the platform's implementations, and of the first batch by the reference's."""
        from benchmarks.accelerator import updates

        first = batch is self.sizes.batches[0]
        names = (updates.DEFAULT, updates.REFERENCE) if first else (updates.DEFAULT,)
        self.begun[batch] = [
            updates.begin(self.sizes, batch, name, profiled=first and name == updates.DEFAULT)
            for name in names
        ]

    def check(self) -> None:
        from benchmarks.accelerator import cases, correctness

        checked = cases.checked_cases(self.sizes)
        self.keep("correctness", correctness.check_all(checked, self.budget.say))

    def update(self, batch: "Batch") -> None:
        from benchmarks.accelerator import updates

        if batch not in self.begun:
            self.begin(batch)
        # What they hold is given back with them.
        begun = self.begun.pop(batch)
        found, state = updates.run(begun, self.budget.say)
        self.keep("updates", found)
        if state is not None and batch is self.sizes.batches[0]:
            self.budget.run(
                f"breakdown of {batch}",
                self.scale * BREAKDOWN,
                lambda: self.break_down(begun[0], state),
            )

    def break_down(self, update: Any, state: Any) -> None:
        """Where the time of an update goes, from the profiler."""
        from benchmarks.accelerator import breakdown

        if (step := update.traced.program()) is None:
            raise RuntimeError(update.traced.reason)
        trace = breakdown.record(step, state, update.batch, _TRACED)
        events = breakdown.device_events(trace)
        found = breakdown.break_down(events, step.as_text(), _TRACED, str(update.size))
        self.keep("breakdown", [found])

    def time(self, batch: "Batch") -> None:
        from benchmarks.accelerator import cases, operations

        timed = cases.timed_cases(self.sizes, batch)
        self.keep("operations", operations.time_all(timed, self.shortest, self.budget.say))

    def keep(self, part: str, results: Sequence[Any]) -> None:
        """Adds results, and writes all of them: what has been measured outlives a failure."""
        import jax

        from benchmarks import timing

        self.results[part] += results
        if self.json_file:
            written: dict[str, Any] = {
                "machine": timing.machine(),
                "device": jax.devices()[0].device_kind,
                "model": dataclasses.asdict(self.sizes.model),
                "left_out": self.budget.left_out,
                "failed": self.budget.failed,
                "seconds": self.budget.spent,
            }
            for name, found in self.results.items():
                written[name] = [dataclasses.asdict(each) for each in found]
            Path(self.json_file).write_text(json.dumps(written, indent=1, default=str) + "\n")

    def report(self) -> int:
        """Prints all tables; returns the exit status."""
        import jax

        from benchmarks.accelerator import tables

        device = jax.devices()[0].device_kind
        if checks := self.results["correctness"]:
            tables.print_checks(checks)
        if times := self.results["operations"]:
            tables.print_times(times)
        if found := self.results["updates"]:
            tables.print_updates(found, device)
        for each in self.results["breakdown"]:
            tables.print_breakdown(each)
        self.keep("updates", [])  # With what was left out.
        for name in self.budget.left_out:
            print(f"left out, for want of time: {name}")
        for name in self.budget.failed:
            print(f"failed, see above: {name}")
        bad = sum(check.bad for check in self.results["correctness"])
        stuck = sum(each.milliseconds is None for each in self.results["updates"])
        self.budget.say(
            f"done: {bad} of {len(self.results['correctness'])} checks are bad, {stuck} updates "
            f"did not run, {len(self.budget.failed)} parts failed"
        )
        return 1 if bad or stuck or self.budget.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
