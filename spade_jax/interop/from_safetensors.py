"""A run's folder of what `--format=safetensors` wrote: `--help` tells more."""

import argparse
import sys
from collections.abc import Sequence

from spade_jax.config import ConfigError
from spade_jax.files import check_folder
from spade_jax.programs import add_folders, exit_status, make_parser, quiet_imports

_DESCRIPTION = """\
Makes a run's folder of parameters that `python -m spade_jax.interop.export --format=safetensors`
wrote: `init_from`, decoding and `spade_jax.load` take it. It has done no step.
"""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = make_parser("spade_jax.interop.from_safetensors", _DESCRIPTION)
    add_folders(parser, "what --format=safetensors wrote")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Returns the exit status: 0, 1 for files that cannot be read, 2 for a wrong setting."""
    try:
        options = parse(argv)
        check_folder(options.output, "--output")
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    def program() -> int:
        with quiet_imports():
            from spade_jax.interop.export.safetensors import read
            from spade_jax.interop.names import by_group
            from spade_jax.interop.run_folder import write_run

        exported = read(options.checkpoint)
        write_run(
            options.output,
            exported.config,
            by_group(exported.tensors, exported.config),
            vocabulary=exported.vocabulary,
            extra_ids=exported.extra_ids,
            input_length=exported.input_length,
            origin={"files": str(options.checkpoint), "step": exported.step},
        )
        print(f"{options.output}: written", file=sys.stderr)
        return 0

    return exit_status(program, str(options.output))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
