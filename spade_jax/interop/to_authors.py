"""Writes a run for the authors' code: `python -m spade_jax.interop.to_authors --help`."""

import argparse
import sys
from collections.abc import Sequence

from spade_jax.parsing import PathOption
from spade_jax.programs import add_folders, exit_status, make_parser, quiet_imports

_DESCRIPTION = """\
Writes the parameters of a run as a checkpoint of the authors' encoder-decoder (msrlongt5), which
its model must be: the flavour "msr" with as many taps in its kernels (max_kernel_length) as its
decoder has positions.
"""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = make_parser("spade_jax.interop.to_authors", _DESCRIPTION)
    add_folders(parser, "a run's workdir")
    parser.add_argument(
        "--origin",
        action=PathOption,
        metavar="DIR",
        help="the folder of from_authors that the run began with, for what it kept; default: the "
        "run's own",
    )
    parser.add_argument("--form", choices=("torch", "safetensors"), default="torch")
    parser.add_argument(
        "--raw_c",
        action="store_true",
        help="write C itself, of which their first forward pass makes C~",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Returns the exit status: 0, 1 for a run that cannot be read, 2 for a wrong setting."""

    def program() -> int:
        options = parse(argv)
        with quiet_imports():
            from spade_jax.interop.authors.runs import export

        for line in export(
            options.checkpoint,
            options.output,
            origin=options.origin,
            form=options.form,
            raw_c=options.raw_c,
        ):
            print(line)
        return 0

    return exit_status(program, "the run")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
