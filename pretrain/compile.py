"""Compiles a pre-training step for devices that need not be here: `python -m pretrain.compile`."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

from pretrain.config import PretrainConfig
from spade_jax.aot.topology import (
    GIB,
    MAX_SLICES,
    Topology,
    devices,
    parse_topology,
    set_environment,
)
from spade_jax.config import require
from spade_jax.config.file import parse_overrides, read_config
from spade_jax.files import check_output
from spade_jax.parsing import PathOption, whole_number
from spade_jax.programs import exit_status, quiet_imports

DESCRIPTION = """\
Compiles a training step for a slice of TPUs, or for CPU or GPU devices that are here, and prints
what each device needs and does. TPUs need the extra `tpu-aot`, and no TPU.
"""
_EPILOG = """\
Settings of the configuration are overridden by their names, the mesh among them, for example

  --topology=v5e:4x4 --config.mesh.sequence=4 --config.data.input_length=16384
"""


def main(argv: Sequence[str]) -> int:
    """Returns the exit status: 0, also where the step does not fit; 2 for a wrong setting."""

    def program() -> int:
        options, config, topology = _parse(argv)
        if options.json is not None:
            check_output(options.json, "--json")
        set_environment(topology)
        with quiet_imports():
            from spade_jax.aot import compiled  # noqa: F401
        # Out of that: XLA and libtpu end the process where they do not know a flag, and say why.
        _compile(options, config, topology, devices(topology))
        return 0

    return exit_status(program, "the report")


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, PretrainConfig, Topology]:
    parser = argparse.ArgumentParser(
        prog="python -m pretrain.compile",
        description=DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, metavar="FILE")
    parser.add_argument(
        "--topology",
        required=True,
        metavar="KIND:SHAPE",
        help="such as v4:2x2x4, v5e:16x16, v5p:4x4x4, v6e:8x8, cpu:8, gpu:1",
    )
    parser.add_argument(
        "--slices",
        action=whole_number(1, MAX_SLICES),
        default=1,
        help="so many slices of that shape (default: 1)",
    )
    parser.add_argument(
        "--part",
        choices=("step", "encoder"),
        default="step",
        help="the whole step, or the gradient of the encoder alone",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="compile a TPU program in less time, less well: it needs somewhat more memory",
    )
    parser.add_argument(
        "--largest_batch",
        action="store_true",
        help="look for the largest batch that fits: some ten compilations",
    )
    parser.add_argument(
        "--json", action=PathOption, metavar="FILE", help="write the report there as well"
    )
    options, rest = parser.parse_known_args(argv)
    topology = parse_topology(options.topology, options.slices)
    overrides = parse_overrides(rest, parser)
    return options, read_config(options.config, overrides, PretrainConfig, "pretrain"), topology


def _compile(
    options: argparse.Namespace, config: PretrainConfig, topology: Topology, found: list[Any]
) -> None:
    from rich.console import Console

    from spade_jax import partition
    from spade_jax.aot import compiled
    from spade_jax.objectives.seq2seq import Seq2Seq
    from spade_jax.training.sharding import make_mesh

    console = Console()
    mesh = make_mesh(config.mesh, found)

    def report(batch_size: int) -> compiled.Report:
        return compiled.compile_step(
            config.model,
            Seq2Seq(config.loss),
            config.optimizer,
            dataclasses.replace(config.train, batch_size=batch_size),
            (config.data.input_length, config.data.decoder_length),
            mesh,
            part=options.part,
            quick=options.quick,
        )

    if options.largest_batch:
        require(
            topology.memory is not None,
            "--largest_batch",
            True,
            f"must go with a topology of TPUs, for the memory of {topology} is not known",
        )
    result = report(config.train.batch_size)
    largest = None
    if options.largest_batch:

        def fits(batch_size: int) -> bool:
            tried = result if batch_size == config.train.batch_size else report(batch_size)
            answer = bool(tried.fits(topology.memory))
            console.print(f"batch {batch_size}: {'fits' if answer else 'does not fit'}")
            return answer

        unit = config.train.microbatches * partition.shards("batch", mesh)
        largest = compiled.largest_batch(fits, unit)
    _show(console, options, config, topology, dict(mesh.shape), result, largest)
    if options.json:
        summary = as_json(config, topology, dict(mesh.shape), options.part, result, largest)
        options.json.write_text(json.dumps(summary, indent=1) + "\n")


def as_json(
    config: PretrainConfig,
    topology: Topology,
    mesh: dict[str, int],
    part: str,
    report: Any,
    largest: int | None,
) -> dict[str, Any]:
    """A report as JSON has it: bytes, operations and counts are those of one device in a step."""
    return {
        "topology": str(topology),
        "slices": topology.slices,
        "devices": topology.size,
        "device_memory": topology.memory,
        "mesh": mesh,
        "part": part,
        "batch_size": config.train.batch_size,
        "input_length": config.data.input_length,
        "target_length": config.data.decoder_length,
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
    }


def _show(
    console: Any,
    options: argparse.Namespace,
    config: PretrainConfig,
    topology: Topology,
    mesh: dict[str, int],
    report: Any,
    largest: int | None,
) -> None:
    from rich.table import Table

    from spade_jax.telemetry.screen import format_bytes

    spread = ", ".join(f"{name} {size}" for name, size in mesh.items() if size > 1) or "one device"
    where = str(topology) if topology.slices == 1 else f"{topology.slices} slices of {topology}"
    table = Table(
        title=f"{options.config} on {where} ({spread}), {options.part}, per device and step",
        title_justify="left",
        caption=f"batch {config.train.batch_size} x ({config.data.input_length} + "
        f"{config.data.decoder_length}) tokens; compiled in {report.seconds:,.0f} s",
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
    console.print(table)
    if report.too_large:
        console.print(f"the compiler: {report.too_large}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
