"""Writes one line of output for each line of input: `python -m spade_jax.decoding --help`."""

import argparse
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from spade_jax.config import MAX_LENGTH, ConfigError
from spade_jax.decoding.config import DecodingConfig
from spade_jax.decoding.lines import Line, read_lines
from spade_jax.files import check_output
from spade_jax.parsing import PathOption, as_in, whole_number
from spade_jax.programs import add_hosts, exit_status, hosts_config, quiet_imports
from spade_jax.training.config import MAX_BATCH, TrainConfig

_DESCRIPTION = """\
Reads a text file line by line and writes what a trained model makes of each line, one line each.
A line becomes the tokens that fine-tuning makes of the same text: white space around it does not
count, and `<extra_id_0>` and so on are sentinels, what a pre-trained model fills in.

Of a language model a line is a prompt, as it stands, and the output what the model writes behind
it. Neither time nor memory of a token grows with the length of the prompt or of the output, unless
the model has full attention.
"""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m spade_jax.decoding",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--checkpoint", required=True, action=PathOption, metavar="DIR", help="a workdir"
    )
    parser.add_argument(
        "--input", required=True, metavar="FILE", help="UTF-8; - reads the standard input"
    )
    parser.add_argument("--output", metavar="FILE", help="default: the standard output")
    parser.add_argument(
        "--max_length",
        action=as_in(DecodingConfig, "max_length"),
        default=128,
        help="the most tokens of an output",
    )
    parser.add_argument(
        "--input_length",
        action=whole_number(1, MAX_LENGTH),
        help="longer inputs are cut off; default: as trained, and of a language model never",
    )
    parser.add_argument(
        "--batch_size",
        action=whole_number(1, MAX_BATCH),
        help="lines that are run at once; default: 8, and 1 of a language model that writes to the "
        "standard output, where text is to be seen as it comes",
    )
    parser.add_argument(
        "--beams",
        action=as_in(DecodingConfig, "beams"),
        default=1,
        help="of beam search; 1: greedy or sampling",
    )
    parser.add_argument(
        "--length_penalty",
        action=as_in(DecodingConfig, "length_penalty"),
        default=0.6,
        help="alpha of beam search",
    )
    parser.add_argument(
        "--temperature",
        action=as_in(DecodingConfig, "temperature"),
        default=0.0,
        help="0: the likeliest token",
    )
    parser.add_argument(
        "--top_k",
        action=as_in(DecodingConfig, "top_k"),
        help="draw from so many tokens; default: from all",
    )
    parser.add_argument(
        "--top_p",
        action=as_in(DecodingConfig, "top_p"),
        default=1.0,
        help="draw from this much probability",
    )
    parser.add_argument(
        "--seed",
        action=as_in(TrainConfig, "seed"),
        default=0,
        help="of sampling; draws depend on --batch_size as well",
    )
    add_hosts(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Returns the exit status: 0, 1 for a file that cannot be read or written, 2 for a wrong
    setting; as where SIGPIPE ends a program, 141 if nobody reads the output any more."""
    try:
        options = parse(argv)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    def program() -> int:
        try:
            return decode()
        except BrokenPipeError:
            return 128 + signal.SIGPIPE

    def decode() -> int:
        if options.input == "-":
            decode_lines(options, read_lines(sys.stdin.buffer, "the standard input"), total=None)
            return 0
        with Path(options.input).open("rb") as file:
            lines = list(read_lines(file, options.input))
        decode_lines(options, lines, total=len(lines))
        return 0

    return exit_status(program, options.input)


def decode_lines(options: argparse.Namespace, lines: Iterable[Line], total: int | None) -> None:
    """Writes the outputs, a batch at a time, and on standard error how far it is.

    Several processes all get all lines; the rows of each batch are shared out among their devices,
    and the first process writes.

    Raises:
      ConfigError: impossible settings, no checkpoint, a sentinel that the vocabulary lacks, or
        processes that differ in their settings or lines.
      RunError: no checkpoint that can be read.
    """
    if options.output is not None:
        check_output(options.output, "--output")
    elif sys.stdout is None:
        raise ConfigError("--output = None: must be a file where the standard output is closed")
    config = DecodingConfig(
        max_length=options.max_length,
        beams=options.beams,
        length_penalty=options.length_penalty,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
    )
    meeting = hosts_config(options)
    # Only here, so that --help and wrong settings need no JAX and no TensorFlow.
    with quiet_imports():
        from spade_jax import hosts
        from spade_jax.decoding.program import decode

    hosts.join(meeting)
    decode(options, config, lines, total)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
