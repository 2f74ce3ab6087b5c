"""What the launch scripts share: checks of the program to launch, and how commands are run."""

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from spade_jax.config import RunError, require
from spade_jax.programs import exit_status

EPILOG = "After -- comes the program with its options, such as: pretrain --config=… --workdir=…"
# With the options that each needs.
PROGRAMS = {
    "pretrain": ("--config", "--workdir"),
    "finetune": ("--config", "--workdir"),
    "spade_jax.decoding": ("--checkpoint", "--input"),
    "spade_jax.interop.export": ("--checkpoint", "--format", "--output"),
}


def add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, do nothing")
    parser.add_argument(
        "program",
        nargs=argparse.REMAINDER,
        metavar="-- PROGRAM …",
        help=f"one of {', '.join(PROGRAMS)}",
    )


def program_arguments(words: Sequence[str], *, here: bool) -> list[str]:
    """The program and its options, checked.

    Args:
      here: whether its files are on this machine, and can be looked for.

    Raises:
      ConfigError: no such program, or options that every run needs are missing.
    """
    words = list(words[1:] if words[:1] == ["--"] else words)
    name = words[0] if words else None
    require(name in PROGRAMS, "program", name, f"must be one of {', '.join(PROGRAMS)}, after --")
    options = dict(word.partition("=")[::2] for word in words[1:] if word.startswith("--"))
    for option in PROGRAMS[str(name)]:
        require(
            bool(options.get(option)), option, None, f"must be among the program's, as {option}=…"
        )
    if here and "--config" in options:
        require(
            Path(options["--config"]).is_file(), "--config", options["--config"], "no such file"
        )
    for option in ("--coordinator", "--process", "--processes"):
        require(option not in options, option, options.get(option), "is set by the launch script")
    return words


def require_name(setting: str, value: str, pattern: str, right: str) -> None:
    """Raises ConfigError unless all of `value` matches."""
    require(re.fullmatch(pattern, value) is not None, setting, value, right)


def run(command: Sequence[str], dry_run: bool, environment: Mapping[str, str] | None = None) -> int:
    """Runs a command and gives its exit status; in a dry run prints it instead.

    Raises:
      RunError: the command is not installed here.
    """
    shown = " ".join(f"{name}={shlex.quote(value)}" for name, value in (environment or {}).items())
    print(("would run: " if dry_run else "running: ") + f"{shown} {shlex.join(command)}".strip())
    if dry_run:
        return 0
    try:
        return subprocess.run(command, env=environment and {**environment}).returncode
    except FileNotFoundError:
        raise RunError(f"{command[0]}: is not installed here; must be on the PATH") from None


def main(launch: Callable[[Sequence[str]], int]) -> None:
    """Ends this process with what `launch` returns of the command line."""
    sys.exit(exit_status(lambda: launch(sys.argv[1:]), "the launch script"))
