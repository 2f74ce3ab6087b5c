"""Writes one line of output for each line of input: `python -m spade_jax.decoding --help`."""

import argparse
import contextlib
import functools
import io
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from spade_jax.config import MAX_LENGTH, ConfigError, require
from spade_jax.decoding.config import DecodingConfig
from spade_jax.decoding.lines import Line, line_tokens, one_line, read_lines
from spade_jax.files import check_output, open_output
from spade_jax.parsing import PathOption, as_in, whole_number
from spade_jax.programs import add_hosts, exit_status, hosts_config, quiet_imports
from spade_jax.training.config import MAX_BATCH, MeshConfig, TrainConfig

_DESCRIPTION = """\
Reads a text file line by line and writes what a trained model makes of each line, one line each.
A line becomes the tokens that fine-tuning makes of the same text: white space around it does not
count, and `<extra_id_0>` and so on are sentinels, what a pre-trained model fills in.
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
        help="longer inputs are cut off; default: as trained",
    )
    parser.add_argument("--batch_size", action=whole_number(1, MAX_BATCH), default=8)
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
        import jax
        from flax import nnx
        from rich.console import Console
        from rich.progress import Progress

        from spade_jax import hosts
        from spade_jax.decoding.generate import make_generator
        from spade_jax.decoding.texts import written
        from spade_jax.loading import model_of, vocabulary_of
        from spade_jax.runs.open import open_run
        from spade_jax.training import sharding

    hosts.join(meeting)
    if jax.process_count() > 1:
        hosts.end_at_sigterm()
        require(
            options.input != "-",
            "--input",
            options.input,
            f"must be a file that all {jax.process_count()} processes read",
        )
        require(
            options.output is not None,
            "--output",
            options.output,
            "must be a file where several processes decode: their libraries, too, write to the "
            "standard output",
        )
        lines = list(lines)
        settings = {name: str(value) for name, value in vars(options).items() if name != "process"}
        hosts.check_agreement({**settings, "lines": lines})
    run = open_run(options.checkpoint, "--checkpoint")
    if hosts.is_first():
        print(f"{options.checkpoint}: {run.why}", file=sys.stderr)
    vocabulary = vocabulary_of(run)
    tokenized: Iterable[list[int] | None] = (line_tokens(line, vocabulary) for line in lines)
    if total is not None:
        tokenized = list(tokenized)  # What is wrong with one must not show half-way.
    input_length = options.input_length or run.input_length
    mesh = sharding.make_mesh(MeshConfig())
    require(
        options.batch_size % mesh.size == 0,
        "--batch_size",
        options.batch_size,
        f"must be a multiple of the {mesh.size} devices",
    )
    graph, params = nnx.split(model_of(run, mesh))
    write = make_generator(
        lambda params: nnx.merge(graph, params),
        config,
        end_id=vocabulary.eos_id,
        vocab_size=vocabulary.size,
        batch_size=options.batch_size,
        input_length=input_length,
        mesh=mesh,
    )
    key = jax.random.key(options.seed) if options.temperature > 0 else None
    cut = 0

    def inputs() -> Iterator[list[int] | None]:
        nonlocal cut
        for tokens in tokenized:
            cut += tokens is not None and len(tokens) >= input_length
            yield None if tokens is None else vocabulary.ended(tokens, input_length)

    console = Console(stderr=True, quiet=not hosts.is_first())
    with (
        _open_output(options.output, hosts.is_first()) as write_text,
        Progress(console=console, transient=True) as progress,
    ):
        task = progress.add_task("decoding", total=total)
        outputs = written(
            functools.partial(write, params),
            inputs(),
            vocabulary,
            batch_size=options.batch_size,
            key=key,
        )
        for batch in outputs:
            write_text("".join(one_line(text) + "\n" for text in batch))
            progress.advance(task, len(batch))
    if cut and hosts.is_first():
        print(f"{cut} inputs were cut off at {input_length} tokens", file=sys.stderr)


@contextlib.contextmanager
def _open_output(file: str | None, first: bool) -> Iterator[Callable[[str], None]]:
    """What writes outputs, into a file that is there when all are: of several processes only those
    of the first one stay. Its errors name the output."""
    if not first:
        yield lambda text: None
        return
    with contextlib.ExitStack() as stack:
        output = sys.stdout if file is None else stack.enter_context(open_output(Path(file)))
        if file is None and isinstance(output, io.TextIOWrapper):
            output.reconfigure(encoding="utf-8")

        def write(text: str) -> None:
            try:
                output.write(text)
                output.flush()
            except OSError as error:
                if file is None:
                    # Python would try, and complain, once more at its end.
                    with contextlib.suppress(OSError):
                        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
                name = file or "the standard output"
                raise OSError(error.errno, error.strerror, name) from None

        yield write


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
