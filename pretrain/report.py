"""What `python -m pretrain.compile` says: as JSON, and on the screen."""

import argparse
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pretrain.config import PretrainConfig
from spade_jax.aot.topology import GIB, Topology

if TYPE_CHECKING:
    from spade_jax.aot.compiled import Report
    from spade_jax.aot.step_time import StepTime

# As many places as the screen shows.
_PLACES = 10


def why_no_time(topology: Topology, quick: bool) -> str | None:
    """Why no time can be estimated; None where it can."""
    if topology.chip is None:
        return "only TPUs have one"
    return "--quick falsifies it" if quick else None


def as_json(
    config: PretrainConfig,
    topology: Topology,
    mesh: dict[str, int],
    part: str,
    report: "Report",
    largest: int | None,
) -> dict[str, Any]:
    """A report as JSON has it: bytes, operations, counts and milliseconds are those of one device
    in a step."""
    return {
        "topology": str(topology),
        "slices": topology.slices,
        "devices": topology.size,
        "device_memory": topology.memory,
        "mesh": mesh,
        "part": part,
        "batch_size": config.train.batch_size,
        "lengths": list(config.data.lengths),
        "memory": None if report.memory is None else dataclasses.asdict(report.memory),
        "too_large": report.too_large,
        "fits": report.fits(topology.memory),
        "largest_batch": largest,
        "flops": report.flops,
        "formula_flops": report.formula_flops,
        "bytes_accessed": report.bytes_accessed,
        "collectives": [
            {"kind": kind, "axes": axes, "count": number, "bytes": size}
            for (kind, axes), (number, size) in report.totals().items()
        ],
        "seconds": report.seconds,
        "time": None if report.time is None else _time_as_json(report.time),
    }


def _time_as_json(time: "StepTime") -> dict[str, Any]:
    return {
        "milliseconds": [1e3 * bound for bound in time.bounds],
        "peak_share": time.peak_shares,
        "computations": 1e3 * time.computations,
        "by_bundles": 1e3 * time.by_bundles,
        "one_round": dict(time.one_round),
        "declared": 1e3 * time.declared,
        "not_counted": dict(time.not_counted),
        "places": [
            {
                "place": place.name,
                "milliseconds": 1e3 * place.seconds,
                "share": place.seconds / time.computations,
                **{phase or "neither": 1e3 * s for phase, s in place.phases.items()},
            }
            for place in time.places
        ],
        "collectives": [
            {"kind": kind, "axes": axes, "milliseconds": 1e3 * seconds}
            for (kind, axes), seconds in time.collectives.items()
        ],
    }


def show(
    console: Any,
    options: argparse.Namespace,
    config: PretrainConfig,
    topology: Topology,
    mesh: dict[str, int],
    report: "Report",
    largest: int | None,
) -> None:
    """Prints tables of what a device needs and does, and of where its time goes."""
    console.print(_needs(options, config, topology, mesh, report, largest))
    if report.too_large:
        console.print(f"the compiler: {report.too_large}")
    if report.time is not None:
        console.print(_places(report.time))
        for sentence in _remarks(report.time):
            console.print(sentence)


def title(
    options: argparse.Namespace, topology: Topology, mesh: dict[str, int], separator: str
) -> str:
    """What was compiled for what."""
    spread = ", ".join(f"{name} {size}" for name, size in mesh.items() if size > 1) or "one device"
    where = str(topology) if topology.slices == 1 else f"{topology.slices} slices of {topology}"
    return f"{options.config} on {where} ({spread}),{separator}{options.part}, per device and step"


def _needs(
    options: argparse.Namespace,
    config: PretrainConfig,
    topology: Topology,
    mesh: dict[str, int],
    report: "Report",
    largest: int | None,
) -> Any:
    from rich.table import Table

    from spade_jax.telemetry.screen import format_bytes

    table = Table(
        title=title(options, topology, mesh, " "),
        title_justify="left",
        caption=f"batch {config.train.batch_size} x "
        f"({' + '.join(map(str, config.data.lengths))}) tokens; "
        f"compiled in {report.seconds:,.0f} s",
        caption_justify="left",
    )
    for heading in ("", "number"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_column("", justify="right")
    if report.memory is not None:
        sizes = {**dataclasses.asdict(report.memory), "in all": report.memory.total}
        for name, size in sizes.items():
            table.add_row(name, "", format_bytes(size))
    available = "" if topology.memory is None else f"of {topology.memory / GIB:,.0f} GiB: "
    verdict = {True: "fits", False: "does not fit", None: "the device's memory is not known"}
    table.add_row("memory", "", available + verdict[report.fits(topology.memory)])
    if largest is not None:
        table.add_row("largest batch that fits", f"{largest:,}", "")
    if report.memory is not None:
        table.add_section()
        table.add_row("matmuls", "", f"{report.flops / 1e9:,.3f} GFLOP")
        if report.formula_flops is not None:
            table.add_row("by the formula", "", f"{report.formula_flops / 1e9:,.3f} GFLOP")
        if report.bytes_accessed is not None:
            table.add_row("accessed, loops once", "", format_bytes(report.bytes_accessed))
        table.add_section()
        for (kind, axes), (number, size) in report.totals().items():
            table.add_row(f"{kind} over {' + '.join(axes)}", f"{number:,}", format_bytes(size))
        table.add_section()
        if (reason := why_no_time(topology, options.quick)) is not None:
            table.add_row("time", "", f"no estimate: {reason}")
    if report.time is not None:
        least, most = report.time.bounds
        table.add_row("computations", "", f"{1e3 * report.time.computations:,.1f} ms")
        waiting = sum(report.time.collectives.values())
        table.add_row("collectives, at the links' speed", "", f"{1e3 * waiting:,.1f} ms")
        table.add_row("time, they hidden to not at all", "", _range(1e3 * least, 1e3 * most, " ms"))
        if report.time.peak_shares is not None:
            best, worst = report.time.peak_shares
            table.add_row("share of the peak", "", _range(100 * worst, 100 * best, "%"))
    return table


def _range(least: float, most: float, unit: str) -> str:
    ends = f"{least:,.1f}", f"{most:,.1f}"
    return f"{' to '.join(dict.fromkeys(ends))}{unit}"


def _places(time: "StepTime") -> Any:
    """The most expensive places; at the end all others."""
    from rich.table import Table

    from spade_jax.aot.origins import PHASES

    table = Table(title="Where the computations' time goes", title_justify="left")
    shown = [phase for phase in PHASES if phase]  # The others are what is left.
    table.add_column("", no_wrap=True)
    for heading in ("ms", "share", *shown):
        table.add_column(heading, justify="right")

    def row(name: str, seconds: float, phases: dict[str, float]) -> None:
        cells = (f"{1e3 * phases[phase]:,.2f}" if phases[phase] else "" for phase in shown)
        share = seconds / max(time.computations, 1e-12)
        table.add_row(name, f"{1e3 * seconds:,.2f}", f"{share:.1%}", *cells)

    for place in time.places[:_PLACES]:
        row(place.name, place.seconds, dict(place.phases))
    if rest := time.places[_PLACES:]:
        sums = {phase: sum(place.phases[phase] for place in rest) for phase in PHASES}
        row(f"{len(rest)} other places", sum(place.seconds for place in rest), sums)
    return table


def _remarks(time: "StepTime") -> list[str]:
    """What the numbers are made of, where that is not the compiler's estimates alone."""
    sentences = []
    if time.by_bundles:
        sentences.append(
            f"of these {1e3 * time.by_bundles:,.2f} ms by scheduled bundles: kernels, on a scale "
            "1.3 to 1.7 times shorter than the rest"
        )
    if time.one_round:
        sentences.append(
            "too little, with one round of loops whose number of rounds is not known: "
            + _with_times(time.one_round)
        )
    if time.declared:
        sentences.append(f"of these {1e3 * time.declared:,.2f} ms as kernels say of themselves")
    if time.not_counted:
        sentences.append(f"unknown, and not counted: {_with_times(time.not_counted)}")
    return sentences


def _with_times(names: Mapping[str, int]) -> str:
    return ", ".join(f"{name} x {times}" for name, times in names.items())
