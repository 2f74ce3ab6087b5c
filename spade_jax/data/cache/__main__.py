"""Builds a cache of the data of a configuration: `python -m spade_jax.data.cache --help`."""

import argparse
import functools
import sys
from collections.abc import Sequence

from spade_jax.config import ConfigError, from_dict, require
from spade_jax.config.file import parse_overrides, read_settings
from spade_jax.data.cache.workers import run_in_processes
from spade_jax.data.config import DataConfig
from spade_jax.parsing import PathOption, whole_number
from spade_jax.programs import add_workers, exit_status, make_parser, quiet_imports

_DESCRIPTION = """\
Tokenises the text of a configuration's data and cuts it into segments, once. Training then reads
them at random with --config.data.cache=DIR: resuming costs nothing, on any number of hosts.
"""
_EPILOG = """\
The data of the configuration can be overridden as in training, for example

  --config.data.sources.0.kind=text  --config.data.sources.0.train='my/*.txt'

A build that was stopped goes on when the same command is given again, and ends with the same files.
"""


def main(argv: Sequence[str]) -> int:
    """Returns the exit status: 0, 2 for a wrong setting or text or output at fault, else 1."""
    parser = make_parser("spade_jax.data.cache", _DESCRIPTION, _EPILOG)
    parser.add_argument(
        "--config", required=True, metavar="FILE", help="such as configs/pretrain/quickstart.py"
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", action=PathOption, help="made if it is not there"
    )
    parser.add_argument(
        "--shards",
        action=whole_number(1, 2**16),
        default=16,
        metavar="N",
        help="files of each source and split, and so the most workers of use (default: 16)",
    )
    add_workers(parser, "processes at work")
    parser.add_argument(
        "--beam",
        metavar="OPTIONS",
        help="build as an Apache Beam pipeline with these options, such as '--runner=DirectRunner'",
    )

    def program() -> int:
        known, rest = parser.parse_known_args(argv)
        overrides = parse_overrides(rest, parser)
        for name in ("checkpoints", "metrics.jsonl"):
            require(
                not (known.output / name).exists(),
                "--output",
                str(known.output),
                f"holds {name} of a run; must be a directory of the cache's own",
            )
        settings = read_settings(known.config, overrides, "pretrain")
        config = from_dict(DataConfig, settings.get("data", {}), "config.data")
        _build(config, known)
        return 0

    return exit_status(program, "the output")


def _build(config: DataConfig, options: argparse.Namespace) -> None:
    with quiet_imports():
        # Only here, so that --help and wrong settings need no TensorFlow.
        from spade_jax.data.cache import build
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    run: build.Runner = build.run_here
    if options.beam is not None:
        run = functools.partial(_beam().run_in_beam, options=options.beam)
    elif options.workers > 1:
        run = functools.partial(run_in_processes, workers=options.workers)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("reading the sources", total=None)

        def report(done: int, total: int, segments: int) -> None:
            text = f"shards ({segments:,} segments)"
            progress.update(task, completed=done, total=total, description=text)

        manifest = build.build_cache(config, options.output, options.shards, run, report)
    size = sum(file.bytes for file in manifest.files)
    print(
        f"{options.output}: {manifest.count('train'):,} segments to train on and "
        f"{manifest.count('validation'):,} to validate on, in {len(manifest.files)} files of "
        f"{size / 1e6:.1f} MB in all; train with --config.data.cache={options.output}"
    )


def _beam():
    try:
        from spade_jax.data.cache import beam
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"--beam: needs the package {error.name}, which `pip install 'spade-jax[beam]'` brings"
        ) from None
    return beam


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
