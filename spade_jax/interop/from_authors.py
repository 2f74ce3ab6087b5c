"""Begins a run with the authors' weights: `python -m spade_jax.interop.from_authors --help`."""

import argparse
import sys
from collections.abc import Sequence

from spade_jax.config import require_pattern
from spade_jax.data.config import DataConfig
from spade_jax.parsing import as_in
from spade_jax.programs import add_folders, exit_status, make_parser, quiet_imports

_DESCRIPTION = """\
Makes a run's folder of an encoder-decoder that the authors' code has trained (msrlongt5). What has
no place among our parameters is kept beside them, so that python -m spade_jax.interop.to_authors
gives back what came, to the bit. Fine-tuning and pre-training go on from the folder
(--config.init_from=DIR).
"""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = make_parser("spade_jax.interop.from_authors", _DESCRIPTION)
    add_folders(parser, "with config.json and pytorch_model.bin or model.safetensors")
    parser.add_argument(
        "--vocabulary",
        required=True,
        metavar="FILE",
        help="a SentencePiece .model with padding at 0, or with their ids (padding at 1), which "
        "are then exchanged as the weights' are; or bytes",
    )
    parser.add_argument(
        "--extra_ids",
        action=as_in(DataConfig, "extra_ids"),
        default=0,
        help="sentinels at the end of the vocabulary",
    )
    parser.add_argument(
        "--input_length",
        action=as_in(DataConfig, "input_length"),
        help="the most tokens of an input; default: max_position_embeddings",
    )
    parser.add_argument(
        "--allow_left",
        action="append",
        default=[],
        metavar="PATTERN",
        help="a regular expression of names that need no place",
    )
    parser.add_argument("--names", action="store_true", help="print what becomes of each name")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Returns the exit status: 0, 1 for a checkpoint that cannot be read, 2 for a wrong setting."""

    def program() -> int:
        options = parse(argv)
        for pattern in options.allow_left:
            require_pattern("--allow_left", pattern)
        with quiet_imports():
            # Only here, so that --help and wrong options need no JAX and no TensorFlow.
            from rich.console import Console

            from spade_jax.interop.authors.runs import start

        report, lines = start(
            options.checkpoint,
            options.output,
            vocabulary=options.vocabulary,
            extra_ids=options.extra_ids,
            input_length=options.input_length,
            allow_left=options.allow_left,
        )
        if options.names:
            Console().print(report.table())
        for line in lines:
            print(line)
        return 0

    return exit_status(program, "the checkpoint")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
