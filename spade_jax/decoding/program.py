"""What `python -m spade_jax.decoding` does once its settings are read and its processes joined."""

import argparse
import contextlib
import dataclasses
import functools
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from spade_jax import hosts
from spade_jax.config import DecoderOnlyConfig, require
from spade_jax.data.vocabulary import Vocabulary
from spade_jax.decoding.config import DecodingConfig
from spade_jax.decoding.continuation import Continuation
from spade_jax.decoding.documents import NO_TASK, as_fine_tuned, of_lines, of_table
from spade_jax.decoding.generate import make_generator
from spade_jax.decoding.lines import (
    Line,
    Stream,
    are_parts_of_one_text,
    line_tokens,
    prompt_tokens,
)
from spade_jax.decoding.outputs import Documents, open_text, write_outputs
from spade_jax.decoding.partial import Partial
from spade_jax.decoding.texts import written
from spade_jax.files import is_written_through
from spade_jax.loading import model_of, vocabulary_of
from spade_jax.runs.open import Run, open_run
from spade_jax.training import sharding
from spade_jax.training.config import MeshConfig

# Of a batch, unless the command says otherwise.
_ROWS = 8


def decode(
    options: argparse.Namespace,
    given: Mapping[str, Any],
    kind: str,
    lines: Iterable[Line],
    total: int | None,
) -> None:
    """Writes the output of each line or row.

    Args:
      options: of the command line.
      given: those of them that `DecodingConfig` has, without those that are not given.
      kind: of the input: "lines", or one of `tables.KINDS`.
      lines: of a text file.
      total: how many lines there are, where that is known.

    Raises:
      ConfigError, RunError: see `spade_jax.decoding.__main__.decode_all`.
    """
    if jax.process_count() > 1:
        _check_processes(options)
    run = open_run(options.checkpoint, "--checkpoint")
    _say(f"{options.checkpoint}: {run.why}")
    vocabulary = vocabulary_of(run)
    if kind == "lines":
        documents = _all_there(options, of_lines(lines, total))
        _warn_of_one_text(options, documents)
    else:
        documents = _all_there(options, of_table(options, kind, run.settings))
        given = given if options.task == NO_TASK else as_fine_tuned(run.settings, given)
    config = DecodingConfig(**given)
    mesh = sharding.make_mesh(MeshConfig())
    language_model = isinstance(run.model, DecoderOnlyConfig)
    # Text is to be seen as it comes.
    streams = language_model and options.output is None and kind == "lines" and mesh.size == 1
    batch_size = options.batch_size or (1 if streams else -(-_ROWS // mesh.size) * mesh.size)
    sharding.require_even_rows(batch_size, mesh)
    read = prompt_tokens if language_model else line_tokens
    tokenized: Iterable[list[int] | None] = (read(line, vocabulary) for line in documents.lines)
    if documents.total is not None:
        tokenized = list(tokenized)  # What is wrong with one must not show half-way.
    key = jax.random.key(options.seed) if config.temperature > 0 else None
    if isinstance(run.model, DecoderOnlyConfig):
        _check_positions(run.model, config, options)
        inputs = _Inputs(tokenized, options.input_length)
    else:
        inputs = _Inputs(tokenized, options.input_length or run.input_length, vocabulary)
    with _partial(options, documents, run, config, batch_size) as partial:
        params, write = _writer(run, config, vocabulary, mesh, batch_size, inputs.length)
        if streams and batch_size == 1:
            assert isinstance(write, Continuation)
            _stream(write, params, inputs, vocabulary, key)
        else:
            if isinstance(write, Continuation):
                write = functools.partial(write, rows=batch_size)
            outputs = written(
                functools.partial(write, params),
                inputs,
                vocabulary,
                batch_size=batch_size,
                key=key,
                done=int(hosts.total(0 if partial is None else len(partial.batches))),
            )
            write_outputs(outputs, documents, options.output, partial)
    if inputs.cut:
        _say(f"{inputs.cut} inputs were cut off at {inputs.length} tokens")


def _say(words: str) -> None:
    if hosts.is_first():
        print(words, file=sys.stderr)


def _all_there(options: argparse.Namespace, documents: Documents) -> Documents:
    """Documents whose number is known, as a list; all of several processes have the same.

    Raises:
      ConfigError: they do not.
    """
    if documents.total is None:
        return documents
    lines = list(documents.lines)
    if jax.process_count() > 1:
        hosts.check_agreement({"lines": lines}, options.input)
    return dataclasses.replace(documents, lines=lines)


def _warn_of_one_text(options: argparse.Namespace, documents: Documents) -> None:
    if documents.total is None:
        return
    if are_parts_of_one_text([line.text for line in documents.lines]):
        _say(
            f"{options.input}: looks like one document, and each of its {documents.total} lines "
            'is one here; a file of JSON lines, {"text": "…"}, holds documents with line breaks '
            "(--format=jsonl)"
        )


def _writer(
    run: Run,
    config: DecodingConfig,
    vocabulary: Vocabulary,
    mesh: Mesh,
    batch_size: int,
    input_length: int | None,
) -> tuple[Any, Callable[..., np.ndarray]]:
    """The parameters, and what writes: (parameters, tokens of inputs, key) -> tokens."""
    graph, params = nnx.split(model_of(run, mesh))
    model = functools.partial(nnx.merge, graph)
    ids = {"end_id": vocabulary.eos_id, "vocab_size": vocabulary.size}
    if isinstance(run.model, DecoderOnlyConfig):
        return params, Continuation(model, config, **ids, mesh=mesh)
    assert input_length is not None
    return params, make_generator(
        model, config, **ids, batch_size=batch_size, input_length=input_length, mesh=mesh
    )


def _partial(
    options: argparse.Namespace,
    documents: Documents,
    run: Run,
    config: DecodingConfig,
    batch_size: int,
) -> contextlib.AbstractContextManager[Partial | None]:
    """What an earlier start of this command has left, and this one keeps: of the first process,
    where documents are all there and the output is a file."""
    output = options.output
    if documents.total is None or output is None or not hosts.is_first():
        return contextlib.nullcontext()
    if is_written_through(Path(output)):
        return contextlib.nullcontext()
    texts = hashlib.sha256()
    for line in documents.lines:
        texts.update(json.dumps(line.text).encode())
    about = {
        "workdir": str(run.workdir.resolve()),
        "step": run.step,
        "decoding": dataclasses.asdict(config),
        "seed": options.seed,
        "batch_size": batch_size,
        "input_length": options.input_length,
        "texts": texts.hexdigest(),
    }
    partial = Partial(output, about)
    if partial.batches:
        count = sum(map(len, partial.batches))
        _say(f"{partial.path}: has {count} of {documents.total} outputs; goes on behind them")
    elif partial.begins_anew:
        _say(f"{partial.path}: was of another command or input, and begins anew")
    return partial


def _check_positions(
    model: DecoderOnlyConfig, config: DecodingConfig, options: argparse.Namespace
) -> None:
    """Raises ConfigError for more tokens than a table of positions has."""
    most = model.decoder.max_positions
    if most is None:
        return
    require(
        config.max_length < most,
        "--max_length",
        config.max_length,
        f"must be below model.decoder.max_positions = {most}",
    )
    require(
        options.input_length is not None and options.input_length + config.max_length <= most,
        "--input_length",
        options.input_length,
        f"must be at most {most - config.max_length}, so that with --max_length it is at most "
        f"model.decoder.max_positions = {most}",
    )


def _check_processes(options: argparse.Namespace) -> None:
    """What several processes need.

    Raises:
      ConfigError: an input or output that they cannot share, or processes that differ in their
        settings.
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
    hosts.check_agreement(
        {name: str(value) for name, value in vars(options).items() if name != "process"}
    )


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
    with open_text(None, hosts.is_first()) as write_text:
        for number, prompt in enumerate(inputs):
            own = None if key is None else jax.random.fold_in(key, number)
            text = Stream(vocabulary)
            if prompt is not None:
                for _, _, tokens in continuation.stream(params, [prompt], own):
                    write_text(text.add(tokens))
            write_text(text.add([], last=True) + "\n")
