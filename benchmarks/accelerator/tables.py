"""Results as tables."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.accelerator.breakdown import SHORT, Breakdown
from benchmarks.accelerator.correctness import REFERENCE, Check
from benchmarks.accelerator.operations import BOTH, FORWARD, Time
from benchmarks.accelerator.updates import UpdateTime


def print_checks(checks: Sequence[Check]) -> None:
    table = Table(
        title=f"errors against {REFERENCE} in float32: the largest over the largest value"
    )
    for heading in ("operation", "implementation", "largest error, of", f"{REFERENCE}'s own"):
        table.add_column(heading, no_wrap=True)
    table.add_column("bound", justify="right")
    table.add_column("")
    own = {each.case: each.errors for each in checks if each.implementation == REFERENCE}
    for each in checks:
        worst = each.worst
        beside = own.get(each.case, {}).get(worst or "")
        table.add_row(
            each.case,
            each.implementation,
            "" if worst is None else f"{each.errors[worst]:.1e}, {worst}",
            "" if beside is None else f"{beside:.1e}",
            f"{each.bound:g}",
            each.verdict,
        )
    _print(table)
    _print_reasons([(each.implementation, each.reason) for each in checks])


def print_times(times: Sequence[Time]) -> None:
    table = Table(title="operations: ms, TFLOP/s of pairs that are seen, MiB of temporaries")
    table.add_column("operation", no_wrap=True)
    table.add_column("implementation", no_wrap=True)
    for direction in (FORWARD, BOTH):
        words = direction.replace(" + ", "\n+ ")
        for heading in (f"{words}\nms", "TFLOP/s", "MiB", f"/ {REFERENCE}"):
            table.add_column(heading, justify="right")
    rows: dict[tuple[str, str], dict[str, Time]] = {}
    for each in times:
        rows.setdefault((each.case, each.implementation), {})[each.direction] = each
    for (case, implementation), directions in rows.items():
        if all(each.milliseconds is None for each in directions.values()):
            continue
        cells: list[str] = []
        for direction in (FORWARD, BOTH):
            each = directions[direction]
            cells += [
                _number(each.milliseconds, ",.3f"),
                _number(each.teraflops, ",.1f"),
                _number(each.temporary_mib, ",.0f"),
                _number(each.ratio, ".2f"),
            ]
        table.add_row(case, implementation, *cells)
    _print(table)
    _print_reasons([(each.implementation, each.reason) for each in times])


def print_updates(updates: Sequence[UpdateTime], device: str) -> None:
    table = Table(title=f"whole updates on one {device}")
    for heading in ("batch", "implementation"):
        table.add_column(heading, no_wrap=True)
    for heading in ("ms", "/ default", "tokens/s", "MFU", "peak MiB"):
        table.add_column(heading, justify="right")
    for each in updates:
        table.add_row(
            each.batch,
            each.implementation,
            _number(each.milliseconds, ",.1f"),
            _number(each.ratio, ".2f"),
            _number(each.tokens_per_second, ",.0f"),
            "unknown" if each.mfu is None else f"{each.mfu:.1%}",
            _number(each.peak_mib, ",.0f"),
        )
    _print(table)
    _print_reasons([(each.implementation, each.reason) for each in updates])


def print_breakdown(breakdown: Breakdown) -> None:
    table = Table(
        title=f"an update of {breakdown.batch}: {breakdown.milliseconds:,.1f} ms of kernels",
        caption=f"{breakdown.kernels:,.0f} kernels an update; {breakdown.copies:,.0f} copies take "
        f"{breakdown.copies_milliseconds:,.1f} ms, {breakdown.short:,.0f} kernels under "
        f"{SHORT:g} us {breakdown.short_milliseconds:,.1f} ms; the state space's share is "
        f"{breakdown.state_space:.1%}",
    )
    table.add_column("place", no_wrap=True)
    headings = ("ms", "share", "kernels", "forward", "recomputed", "backward")
    for heading in headings:
        table.add_column(heading, justify="right")
    for place in breakdown.places:
        phases = (place.phases[phase] for phase in ("forward", "recomputed", "backward"))
        table.add_row(
            place.name,
            f"{place.milliseconds:,.2f}",
            f"{place.milliseconds / (breakdown.milliseconds or 1.0):.1%}",
            f"{place.kernels:,.0f}",
            *(f"{each:,.2f}" if each else "" for each in phases),
        )
    _print(table)


def _print(table: Table) -> None:
    """As wide as it must be where it goes to a file, which has no width."""
    console = Console()
    Console(width=console.width if console.is_terminal else max(console.width, 130)).print(table)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _print_reasons(reasons: Sequence[tuple[str, str]]) -> None:
    """What did not run, each reason once."""
    for implementation, reason in dict.fromkeys(each for each in reasons if each[1]):
        print(f"{implementation}: {reason}")
