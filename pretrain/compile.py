"""Compiles a pre-training step for devices that need not be here: `python -m pretrain.compile`."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

from pretrain.config import PretrainConfig
from pretrain.report import as_json, show, title, why_no_time
from spade_jax.aot.picture import FORMATS, draw_time
from spade_jax.aot.topology import (
    MAX_SLICES,
    Topology,
    devices,
    parse_topology,
    set_environment,
)
from spade_jax.config import Range, require
from spade_jax.config.file import parse_overrides, read_config
from spade_jax.files import check_output
from spade_jax.parsing import PathOption, number, whole_number
from spade_jax.programs import exit_status, make_parser, quiet_imports

# Of the peak.
_Share = number(float, Range(0, 1, above=True))

DESCRIPTION = """\
Compiles a training step for a slice of TPUs, or for CPU or GPU devices that are here, and prints
what each device needs and does; of TPUs also how long it takes, by their compiler's estimate, and
for what. TPUs need the extra `tpu-aot`, and no TPU.
"""
_EPILOG = """\
Settings of the configuration are overridden by their names, the mesh among them, for example

  --topology=v5e:4x4 --config.mesh.sequence=4 --config.data.input_length=16384
"""


def main(argv: Sequence[str]) -> int:
    """Returns the exit status: 0, also where the step does not fit; 2 for a wrong setting."""

    def program() -> int:
        options, config, topologies = _parse(argv)
        if options.days:
            _print_days(options, config, topologies)
            return 0
        require(
            len(topologies) == 1,
            "--topology",
            options.topology,
            "must be one; several go with --days",
        )
        topology = topologies[0]
        _check(options, topology)
        set_environment(topology)
        with quiet_imports():
            from spade_jax.aot import compiled  # noqa: F401
        # Out of that: XLA and libtpu end the process where they do not know a flag, and say why.
        _compile(options, config, topology, devices(topology))
        return 0

    return exit_status(program, "the report")


def _print_days(
    options: argparse.Namespace, config: PretrainConfig, topologies: Sequence[Topology]
) -> None:
    """Prints how long the whole run takes, by the formula for its operations."""
    with quiet_imports():
        from rich.console import Console

        from pretrain.days import durations, show
        from pretrain.learning import with_vocabulary

    config = with_vocabulary(config)
    found = durations(config, topologies, options.share)
    Console().print(show(options.config, config, found, options.share))


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, PretrainConfig, list[Topology]]:
    parser = make_parser("pretrain.compile", DESCRIPTION, _EPILOG)
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
        help="compile a TPU program in less time, less well: it needs somewhat more memory, and "
        "no time can be estimated",
    )
    parser.add_argument(
        "--largest_batch",
        action="store_true",
        help="look for the largest batch that fits: some ten compilations",
    )
    parser.add_argument(
        "--json", action=PathOption, metavar="FILE", help="write the report there as well"
    )
    parser.add_argument(
        "--picture",
        action=PathOption,
        metavar="FILE",
        help="draw there, as .png or .svg, where the time of a step on TPUs goes",
    )
    parser.add_argument(
        "--days",
        action="store_true",
        help="compile nothing: say how long the whole configuration takes, by the number of its "
        "operations, on topologies that commas separate",
    )
    parser.add_argument(
        "--share",
        action=_Share,
        default=0.4,
        help="of the devices' peak that an update reaches (default: 0.4), for --days",
    )
    options, rest = parser.parse_known_args(argv)
    topologies = [parse_topology(name, options.slices) for name in options.topology.split(",")]
    overrides = parse_overrides(rest, parser)
    return options, read_config(options.config, overrides, PretrainConfig, "pretrain"), topologies


def _check(options: argparse.Namespace, topology: Topology) -> None:
    """Raises ConfigError for options that contradict, or files that cannot be written."""
    if options.json is not None:
        check_output(options.json, "--json")
    if options.picture is not None:
        picture = str(options.picture)
        known = " or ".join(FORMATS)
        require(options.picture.suffix in FORMATS, "--picture", picture, f"must end in {known}")
        reason = why_no_time(topology, options.quick)
        require(
            reason is None,
            "--picture",
            picture,
            f"must go with TPUs and without --quick: it draws an estimate, and {reason}",
        )
        check_output(options.picture, "--picture")


def _compile(
    options: argparse.Namespace, config: PretrainConfig, topology: Topology, found: list[Any]
) -> None:
    from rich.console import Console

    from pretrain.learning import with_vocabulary
    from pretrain.objectives import objective_of
    from spade_jax import partition
    from spade_jax.aot import compiled
    from spade_jax.training.initial import resolve_model
    from spade_jax.training.sharding import make_mesh

    console = Console()
    config = with_vocabulary(config)
    model = resolve_model(config.own_model, None, config.dropout_rate, config.dtype)
    mesh = make_mesh(config.mesh, found)

    def report(batch_size: int, timed: bool = False) -> compiled.Report:
        return compiled.compile_step(
            model,
            objective_of(config),
            config.optimizer,
            dataclasses.replace(config.train, batch_size=batch_size),
            config.data.lengths,
            mesh,
            part=options.part,
            quick=options.quick,
            timed=topology if timed else None,
        )

    if options.largest_batch:
        require(
            topology.memory is not None,
            "--largest_batch",
            True,
            f"must go with a topology of TPUs, for the memory of {topology} is not known",
        )
    timed = why_no_time(topology, options.quick) is None
    result = report(config.train.batch_size, timed)
    largest = None
    if options.largest_batch:

        def fits(batch_size: int) -> bool:
            tried = result if batch_size == config.train.batch_size else report(batch_size)
            answer = bool(tried.fits(topology.memory))
            console.print(f"batch {batch_size}: {'fits' if answer else 'does not fit'}")
            return answer

        unit = config.train.microbatches * partition.shards("batch", mesh)
        largest = compiled.largest_batch(fits, unit)
    axes = dict(mesh.shape)
    show(console, options, config, topology, axes, result, largest)
    if options.json:
        summary = as_json(config, topology, axes, options.part, result, largest)
        options.json.write_text(json.dumps(summary, indent=1) + "\n")
    if options.picture and result.time is None:
        console.print(f"{options.picture}: not drawn, for the step does not fit")
    if options.picture and result.time is not None:
        draw_time(result.time, title(options, topology, axes, "\n"), options.picture)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
