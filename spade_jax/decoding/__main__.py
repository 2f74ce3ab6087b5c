"""Writes an output for each line or row of the input: `python -m spade_jax.decoding --help`."""

import argparse
import dataclasses
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from spade_jax.config import MAX_LENGTH, ConfigError, require, require_choice
from spade_jax.data.text_to_text.tables import KINDS, kind_of
from spade_jax.decoding.config import DecodingConfig
from spade_jax.decoding.lines import Line, read_lines
from spade_jax.files import check_output
from spade_jax.parsing import PathOption, as_in, whole_number
from spade_jax.programs import add_hosts, exit_status, hosts_config, make_parser, quiet_imports
from spade_jax.training.config import MAX_BATCH, TrainConfig

_FORMATS = ("lines", *(kind.removeprefix(".") for kind in KINDS))

_DESCRIPTION = """\
Reads a text file line by line, or a table row by row, and writes what a trained model makes of
each. A text becomes the tokens that fine-tuning makes of the same text: white space around it does
not count, and `<extra_id_0>` and so on are sentinels, what a pre-trained model fills in.

A table (.jsonl, .csv, .tsv, .parquet) has a document in each row, which may hold line breaks. The
output is that table with one column more, in the format that its name tells. Rows of a fine-tuned
run's task are read and predicted as at the end of fine-tuning: the same columns, prefix, lengths
and beams. Where input and output are files, the same command goes on where it was stopped.

Of a language model a line is a prompt, as it stands, and the output what the model writes behind
it. Neither time nor memory of a token grows with the length of the prompt or of the output, unless
the model has full attention.
"""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = make_parser("spade_jax.decoding", _DESCRIPTION)
    parser.add_argument(
        "--checkpoint", required=True, action=PathOption, metavar="DIR", help="a workdir"
    )
    parser.add_argument(
        "--input", required=True, metavar="FILE", help="UTF-8; - reads the standard input"
    )
    parser.add_argument("--output", metavar="FILE", help="default: the standard output")
    parser.add_argument(
        "--format",
        metavar="FORMAT",
        help=f"of the input, where its name does not tell: {', '.join(_FORMATS)}",
    )
    parser.add_argument(
        "--inputs",
        metavar="COLUMN[,COLUMN]",
        help="the columns of a table that stand for those that the run was fine-tuned on, in their "
        "order, or that hold texts; default: those, or text",
    )
    parser.add_argument(
        "--output_column",
        metavar="COLUMN",
        default="prediction",
        help="of outputs (default: prediction)",
    )
    parser.add_argument(
        "--task",
        metavar="TASK",
        help="which of the tasks of a fine-tuned run a table is of, if there are several; none: "
        "texts of tables, too, are read as they stand",
    )
    parser.add_argument(
        "--max_length",
        action=as_in(DecodingConfig, "max_length"),
        help="the most tokens of an output; default: 128, of a fine-tuned run's table as in its "
        "fine-tuning, and so are --beams and --length_penalty",
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
        help="of beam search; 1, the default: greedy or sampling",
    )
    parser.add_argument(
        "--length_penalty",
        action=as_in(DecodingConfig, "length_penalty"),
        help="alpha of beam search; default: 0.6",
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
        kind = input_kind(options)
        if kind != "lines":
            Path(options.input).stat()  # One that is not there is said at once.
            decode_all(options, kind)
        elif options.input == "-":
            decode_all(options, kind, read_lines(sys.stdin.buffer, "the standard input"))
        else:
            with Path(options.input).open("rb") as file:
                lines = list(read_lines(file, options.input))
            decode_all(options, kind, lines, total=len(lines))
        return 0

    return exit_status(program, options.input)


def input_kind(options: argparse.Namespace) -> str:
    """What the input is: "lines", or one of `tables.KINDS`.

    Raises:
      ConfigError: an unknown format, a table on the standard input, or options of tables with
        lines.
    """
    if options.format is not None:
        require_choice("--format", options.format, _FORMATS)
        kind = "lines" if options.format == "lines" else f".{options.format}"
    else:
        kind = kind_of(options.input) or "lines"
    if kind == "lines":
        for name in ("inputs", "task"):
            value = getattr(options, name)
            require(value is None, f"--{name}", value, f"is of tables only, not of {options.input}")
    require(
        kind == "lines" or options.input != "-",
        "--input",
        options.input,
        "must be a file where it is a table; /dev/stdin is one",
    )
    return kind


def decode_all(
    options: argparse.Namespace, kind: str, lines: Iterable[Line] = (), total: int | None = None
) -> None:
    """Writes the outputs, a batch at a time, and on standard error how far it is.

    Several processes all get all lines or rows; the rows of each batch are shared out among their
    devices, and the first process writes.

    Args:
      kind: of the input, as `input_kind` gives it.
      lines: of a text file; a table is read when its run has said how.
      total: how many lines there are, where that is known.

    Raises:
      ConfigError: impossible settings, no checkpoint, a table that cannot be read or written, a
        sentinel that the vocabulary lacks, or processes that differ in their settings or input.
      RunError: no checkpoint that can be read, or another process that writes the same output.
    """
    if options.output is not None:
        check_output(options.output, "--output")
    elif sys.stdout is None:
        raise ConfigError("--output = None: must be a file where the standard output is closed")
    fields = (field.name for field in dataclasses.fields(DecodingConfig))
    given = {name: value for name in fields if (value := getattr(options, name)) is not None}
    DecodingConfig(**given)
    meeting = hosts_config(options)
    # Only here, so that --help and wrong settings need no JAX and no TensorFlow.
    with quiet_imports():
        from spade_jax import hosts
        from spade_jax.decoding.program import decode

    hosts.join(meeting)
    decode(options, given, kind, lines, total)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
