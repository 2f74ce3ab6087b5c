"""What `python -m spade_jax.decoding` does once its settings are read and its processes joined."""

import argparse
import contextlib
import functools
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from rich.console import Console
from rich.progress import Progress

from spade_jax import hosts
from spade_jax.config import require
from spade_jax.data.vocabulary import Vocabulary
from spade_jax.decoding.config import DecodingConfig
from spade_jax.decoding.generate import make_generator
from spade_jax.decoding.lines import Line, line_tokens, one_line
from spade_jax.decoding.texts import written
from spade_jax.files import open_output
from spade_jax.loading import model_of, vocabulary_of
from spade_jax.runs.open import Run, open_run
from spade_jax.training import sharding
from spade_jax.training.config import MeshConfig


def decode(
    options: argparse.Namespace, config: DecodingConfig, lines: Iterable[Line], total: int | None
) -> None:
    """Writes the output of each line.

    Args:
      options: of the command line.
      total: how many lines there are, where that is known.

    Raises:
      ConfigError, RunError: see `spade_jax.decoding.__main__.decode_lines`.
    """
    if jax.process_count() > 1:
        lines = _agreed(options, lines)
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
    write = _generator(run, config, vocabulary, options.batch_size, input_length, mesh)
    inputs = _Inputs(tokenized, vocabulary, input_length)
    outputs = written(
        write,
        inputs,
        vocabulary,
        batch_size=options.batch_size,
        key=jax.random.key(options.seed) if options.temperature > 0 else None,
    )
    _write(outputs, options.output, total)
    if inputs.cut and hosts.is_first():
        print(f"{inputs.cut} inputs were cut off at {input_length} tokens", file=sys.stderr)


def _agreed(options: argparse.Namespace, lines: Iterable[Line]) -> list[Line]:
    """The lines, which all of several processes have.

    Raises:
      ConfigError: an input or output that they cannot share, or processes that differ in their
        settings or lines.
    """
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
    return lines


def _generator(
    run: Run,
    config: DecodingConfig,
    vocabulary: Vocabulary,
    batch_size: int,
    input_length: int,
    mesh: Mesh,
) -> Callable[..., np.ndarray]:
    """`make_generator`, bound to the model of a run."""
    graph, params = nnx.split(model_of(run, mesh))
    write = make_generator(
        lambda params: nnx.merge(graph, params),
        config,
        end_id=vocabulary.eos_id,
        vocab_size=vocabulary.size,
        batch_size=batch_size,
        input_length=input_length,
        mesh=mesh,
    )
    return functools.partial(write, params)


class _Inputs:
    """What the model reads of each line: at most so many tokens, the end included.

    Attributes:
      cut: how many of those read so far were longer.
    """

    def __init__(self, tokenized: Iterable[list[int] | None], vocabulary: Vocabulary, length: int):
        self._tokenized = tokenized
        self._vocabulary = vocabulary
        self._length = length
        self.cut = 0

    def __iter__(self) -> Iterator[list[int] | None]:
        for tokens in self._tokenized:
            self.cut += tokens is not None and len(tokens) >= self._length
            yield None if tokens is None else self._vocabulary.ended(tokens, self._length)


def _write(outputs: Iterable[list[str]], file: str | None, total: int | None) -> None:
    """Writes batches of outputs as they come, and shows how far it is."""
    console = Console(stderr=True, quiet=not hosts.is_first())
    with (
        _open_output(file, hosts.is_first()) as write_text,
        Progress(console=console, transient=True) as progress,
    ):
        task = progress.add_task("decoding", total=total)
        for batch in outputs:
            write_text("".join(one_line(text) + "\n" for text in batch))
            progress.advance(task, len(batch))


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
