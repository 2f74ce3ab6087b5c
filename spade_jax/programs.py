"""What programs share: exit statuses, and the command line of those that run a model.

Nothing here imports JAX or TensorFlow, so that `--help` and wrong settings answer at once.
"""

import argparse
import contextlib
import dataclasses
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from spade_jax.config import ConfigError, RunError, require
from spade_jax.config.file import parse_overrides, read_config
from spade_jax.config.hosts import HostsConfig
from spade_jax.parsing import PathOption, as_in, whole_number

T = TypeVar("T")

_EPILOG = """\
Every setting of the configuration file can be overridden by its name, for example

  --config.train.steps=500  --config.optimizer.learning_rate=3e-4
  --config.data.sources.0.kind=text  --config.data.sources.0.train='my/*.txt'
  --config.model.preset=base  (or tiny, small, large: a size instead of the file's model)

--help-config lists them all.

A second start with the same workdir goes on where the first one stopped.
"""


def take_large_pages() -> None:
    """Starts this program anew, in the same process, if its memory would come in small pages.

    On Linux arrays of a few megabytes and more are given back when they are no longer needed, and
    come back as pages of 4 KiB, each of them zeroed on its first touch: of an update of the
    quickstart on two CPU cores that is a quarter of the time. glibc asks for pages of 2 MiB where
    it is told to, but reads so only when a process starts. What GLIBC_TUNABLES already says stays.
    """
    has_glibc = "CS_GNU_LIBC_VERSION" in getattr(os, "confstr_names", {})
    if not has_glibc or not sys.executable or _TUNABLES in os.environ:
        return
    os.environ[_TUNABLES] = "glibc.malloc.hugetlb=1"
    os.execv(sys.executable, sys.orig_argv)


_TUNABLES = "GLIBC_TUNABLES"


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """For the imports of a program: where something goes wrong, one sentence says so, and the
    libraries' logs, then and later, would bury it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    # TensorFlow writes to the file descriptor, whatever its log level, when it finds no GPU.
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def exit_status(program: Callable[[], int], file: str) -> int:
    """What `program` returns; or, with one line that says why, 2 for a wrong setting, 130 for
    Ctrl-C, else 1. Takes leave of the other processes, if there are any.

    Args:
      file: what an error of the operating system that names no file is about.
    """
    try:
        status = _said(program, file)
    except Exception as error:
        _leave(1, error)
        raise
    _leave(status)
    return status


def _said(program: Callable[[], int], file: str) -> int:
    try:
        return program()
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename or file}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command starts again", file=sys.stderr)
        return 130


def _leave(status: int, error: Exception | None = None) -> None:
    """Leaves other processes, if there are any: then the module is there that knows of them."""
    hosts = sys.modules.get("spade_jax.hosts")
    if hosts is not None:
        hosts.leave(status, error)


@dataclasses.dataclass(frozen=True)
class Command(Generic[T]):
    """What a command line says.

    Attributes:
      flags: by the names that `parse` was given, whether they are there.
    """

    config: T
    workdir: Path
    hosts: HostsConfig
    flags: Mapping[str, bool]


class _HelpConfig(argparse.Action):
    """Prints settings, and leaves."""

    def __init__(self, *args: Any, config_class: type, **more: Any):
        super().__init__(*args, **more)
        self._config_class = config_class

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        from spade_jax.config.explain import as_text, matching

        width = min(shutil.get_terminal_size().columns, 100)
        print(as_text(matching(self._config_class, values or ""), width))
        parser.exit()


def make_parser(module: str, description: str, epilog: str = "") -> argparse.ArgumentParser:
    """The command line of `python -m MODULE`, whose help stands as it is written."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def parse(
    argv: Sequence[str],
    config_class: type[T],
    program: str,
    description: str,
    flags: Mapping[str, str],
) -> Command[T]:
    """The configuration and the workdir that a command line names.

    Args:
      flags: options that are there or not, and what the help says of each: what a program does,
        where it is no setting of its run.

    Raises:
      ConfigError: a file or setting that does not exist, or what `config_class` rejects.
      SystemExit: `--help`, or a command line of another form.
    """
    parser = make_parser(program, description, _EPILOG)
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
    for name, words in flags.items():
        parser.add_argument(f"--{name}", action="store_true", help=words)
    parser.add_argument(
        "--help-config",
        action=_HelpConfig,
        nargs="?",
        config_class=config_class,
        metavar="PATTERN",
        help="print the settings whose names have a pattern, or all of them: type, range, default "
        "and what each is",
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
    overrides = parse_overrides(rest, parser)
    config = read_config(known.config, overrides, config_class, program)
    given = {name: getattr(known, name) for name in flags}
    return Command(config, known.workdir, hosts_config(known), given)


def add_folders(parser: argparse.ArgumentParser, read: str) -> None:
    """Adds --checkpoint, a folder that is read, and --output, one that is made.

    Args:
      read: what the help says of the former.
    """
    parser.add_argument("--checkpoint", required=True, action=PathOption, metavar="DIR", help=read)
    add_output(parser)


def add_output(parser: argparse.ArgumentParser) -> None:
    """Adds --output, a folder that is made as a whole (`files.whole_folder`)."""
    parser.add_argument(
        "--output",
        required=True,
        action=PathOption,
        metavar="DIR",
        help="must not be there, or be empty; appears as a whole",
    )


def add_workers(parser: argparse.ArgumentParser, words: str) -> None:
    """Adds --workers, processes on this machine.

    Args:
      words: what the help says of them.
    """
    parser.add_argument(
        "--workers",
        action=whole_number(1, 2**10),
        default=os.cpu_count() or 1,
        metavar="N",
        help=f"{words} (default: one for each core)",
    )


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
