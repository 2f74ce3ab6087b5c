"""The command line of the programs that run a model: configuration, workdir, several processes.

Nothing here imports JAX or TensorFlow, so that `--help` and wrong settings answer at once.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from spade_jax.config import file as command_line
from spade_jax.config import require
from spade_jax.parsing import PathOption, as_in
from spade_jax.training.config import HostsConfig, RunError

T = TypeVar("T")

_EPILOG = """\
Every setting of the configuration file can be overridden by its name, for example

  --config.train.steps=500  --config.optimizer.learning_rate=3e-4
  --config.data.sources.0.kind=text  --config.data.sources.0.train='my/*.txt'

A second start with the same workdir goes on where the first one stopped.
"""


def run_status(program: Callable[[], int], file: str) -> int:
    """As `command_line.exit_status`, with 1 for a run that cannot go on; takes leave of the other
    processes, if there are any."""

    def run() -> int:
        try:
            return program()
        except RunError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1

    try:
        status = command_line.exit_status(run, file)
    except Exception as error:
        _leave(1, error)
        raise
    _leave(status)
    return status


def _leave(status: int, error: Exception | None = None) -> None:
    """Leaves other processes, if there are any: then the module is there that knows of them."""
    hosts = sys.modules.get("spade_jax.hosts")
    if hosts is not None:
        hosts.leave(status, error)


@dataclasses.dataclass(frozen=True)
class Command(Generic[T]):
    """What a command line says."""

    config: T
    workdir: Path
    hosts: HostsConfig


def parse(argv: Sequence[str], config_class: type[T], program: str, description: str) -> Command[T]:
    """The configuration and the workdir that a command line names.

    Raises:
      ConfigError: a file or setting that does not exist, or what `config_class` rejects.
      SystemExit: `--help`, or a command line of another form.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {program}",
        description=description,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", required=True, metavar="FILE", help=f"such as configs/{program}/quickstart.py"
    )
    parser.add_argument(
        "--workdir",
        required=True,
        metavar="DIR",
        action=PathOption,
        help="where checkpoints, metrics and the loss curve go; made if it is not there",
    )
    add_hosts(parser)
    known, rest = parser.parse_known_args(argv)
    checkpoints = known.workdir / "checkpoints"
    require(
        checkpoints.is_dir() or not checkpoints.exists(),
        "--workdir",
        str(known.workdir),
        "its checkpoints must be a directory, not a file",
    )
    overrides = command_line.parse_overrides(rest, parser)
    config = command_line.read_config(known.config, overrides, config_class, program)
    return Command(config, known.workdir, hosts_config(known))


def add_hosts(parser: argparse.ArgumentParser) -> None:
    """Adds the options that `hosts_config` reads."""
    group = parser.add_argument_group(
        "one of several processes",
        "which start with the same command and share their files; clusters of Cloud TPU, Slurm and "
        "Open MPI are found without these",
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="an address of process 0")
    group.add_argument(
        "--processes",
        action=as_in(HostsConfig, "processes"),
        metavar="N",
        help="how many there are",
    )
    group.add_argument(
        "--process",
        action=as_in(HostsConfig, "process"),
        metavar="I",
        help="which one this is, from 0",
    )
    group.add_argument(
        "--distributed", action="store_true", help="ask the environment even if it seems to be none"
    )
    group.add_argument(
        "--timeout",
        action=as_in(HostsConfig, "timeout"),
        default=300.0,
        metavar="SECONDS",
        help="to wait for the others",
    )


def hosts_config(options: argparse.Namespace) -> HostsConfig:
    """What a command line says of several processes.

    Raises:
      ConfigError: what `HostsConfig` rejects.
    """
    return HostsConfig(
        options.distributed,
        options.coordinator,
        options.processes,
        options.process,
        options.timeout,
    )
