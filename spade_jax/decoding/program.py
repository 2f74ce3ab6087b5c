"""What `python -m spade_jax.decoding` does once its settings are read and its processes joined."""

import argparse
import contextlib
import functools
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from rich.console import Console
from rich.progress import Progress

from spade_jax import hosts
from spade_jax.config import DecoderOnlyConfig, require
from spade_jax.data.vocabulary import Vocabulary
from spade_jax.decoding.config import DecodingConfig
from spade_jax.decoding.continuation import Continuation
from spade_jax.decoding.generate import make_generator
from spade_jax.decoding.lines import Line, Stream, line_tokens, one_line, prompt_tokens
from spade_jax.decoding.texts import written
from spade_jax.files import open_output
from spade_jax.loading import model_of, vocabulary_of
from spade_jax.runs.open import open_run
from spade_jax.training import sharding
from spade_jax.training.config import MeshConfig

# Of a batch, unless the command says otherwise.
_ROWS = 8


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
    mesh = sharding.make_mesh(MeshConfig())
    language_model = isinstance(run.model, DecoderOnlyConfig)
    # Text is to be seen as it comes.
    streams = language_model and options.output is None and mesh.size == 1
    batch_size = options.batch_size or (1 if streams else -(-_ROWS // mesh.size) * mesh.size)
    sharding.require_even_rows(batch_size, mesh)
    read = prompt_tokens if language_model else line_tokens
    tokenized: Iterable[list[int] | None] = (read(line, vocabulary) for line in lines)
    if total is not None:
        tokenized = list(tokenized)  # What is wrong with one must not show half-way.
    key = jax.random.key(options.seed) if options.temperature > 0 else None
    graph, params = nnx.split(model_of(run, mesh))
    if isinstance(run.model, DecoderOnlyConfig):
        inputs = _Inputs(tokenized, options.input_length)
        _check_positions(run.model, options)
        model = functools.partial(nnx.merge, graph)
        ids = {"end_id": vocabulary.eos_id, "vocab_size": vocabulary.size}
        continuation = Continuation(model, config, **ids, mesh=mesh)
        if streams and batch_size == 1:
            _stream(continuation, params, inputs, vocabulary, key)
            _tell_cut(inputs)
            return
        write = functools.partial(continuation, params, rows=batch_size)
    else:
        inputs = _Inputs(tokenized, options.input_length or run.input_length, vocabulary)
        write = functools.partial(
            make_generator(
                lambda params: nnx.merge(graph, params),
                config,
                end_id=vocabulary.eos_id,
                vocab_size=vocabulary.size,
                batch_size=batch_size,
                input_length=options.input_length or run.input_length,
                mesh=mesh,
            ),
            params,
        )
    outputs = written(write, inputs, vocabulary, batch_size=batch_size, key=key)
    _write(outputs, options.output, total)
    _tell_cut(inputs)


def _check_positions(model: DecoderOnlyConfig, options: argparse.Namespace) -> None:
    """Raises ConfigError for more tokens than a table of positions has."""
    most = model.decoder.max_positions
    if most is None:
        return
    require(
        options.max_length < most,
        "--max_length",
        options.max_length,
        f"must be below model.decoder.max_positions = {most}",
    )
    require(
        options.input_length is not None and options.input_length + options.max_length <= most,
        "--input_length",
        options.input_length,
        f"must be at most {most - options.max_length}, so that with --max_length it is at most "
        f"model.decoder.max_positions = {most}",
    )


def _tell_cut(inputs: "_Inputs") -> None:
    if inputs.cut and hosts.is_first():
        print(f"{inputs.cut} inputs were cut off at {inputs.length} tokens", file=sys.stderr)


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


class _Inputs:
    """What the model reads of each line.

    Args:
      length: the most tokens; None for all.
      ends: of inputs that end: then what is kept of a longer one is its beginning, and else the
        last tokens.

    Attributes:
      cut: how many of those read so far were longer.
    """

    def __init__(
        self,
        tokenized: Iterable[list[int] | None],
        length: int | None,
        ends: Vocabulary | None = None,
    ):
        self._tokenized, self._ends = tokenized, ends
        self.length = length
        self.cut = 0

    def __iter__(self) -> Iterator[list[int] | None]:
        for tokens in self._tokenized:
            yield None if tokens is None else self._cut(tokens)

    def _cut(self, tokens: list[int]) -> list[int]:
        whole = len(tokens) + (self._ends is not None)
        self.cut += self.length is not None and whole > self.length
        if self._ends is not None:
            assert self.length is not None
            return self._ends.ended(tokens, self.length)
        return tokens if self.length is None else tokens[-self.length :]


def _stream(
    continuation: Continuation,
    params: Any,
    inputs: Iterable[list[int] | None],
    vocabulary: Vocabulary,
    key: jax.Array | None,
) -> None:
    """Writes what a language model writes, as it comes."""
    with _open_output(None, hosts.is_first()) as write_text:
        for number, prompt in enumerate(inputs):
            own = None if key is None else jax.random.fold_in(key, number)
            text = Stream(vocabulary)
            if prompt is not None:
                for _, _, tokens in continuation.stream(params, [prompt], own):
                    write_text(text.add(tokens))
            write_text(text.add([], last=True) + "\n")


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
