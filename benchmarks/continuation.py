"""A language model that writes behind contexts of several lengths: time and memory of a token.

`python -m benchmarks.decode --config=configs/pretrain/lm_quickstart.py`
"""

import argparse
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.table import Table

from benchmarks import timing
from spade_jax.config import DecoderOnlyConfig
from spade_jax.decoding.config import DecodingConfig
from spade_jax.decoding.continuation import Continuation
from spade_jax.decoding.sampling import Writing, begin
from spade_jax.models.decoder_only import DecoderOnly

K = TypeVar("K", bound=Hashable)


class Read(NamedTuple):
    """A context that was read in pieces.

    Attributes:
      tokens: of each row, as many as make whole pieces.
      seconds: that it took.
      cache: what is kept of it, which writing uses up.
      cache_bytes: of that.
    """

    tokens: int
    seconds: float
    cache: Any
    cache_bytes: int


def table(options: argparse.Namespace, config: DecoderOnlyConfig) -> Table:
    """A row for each length of the context.

    read/s: tokens of the context, read in pieces. ms, tokens/s: of tokens that are written behind
    it, the latter of all rows of the batch. anew ms: of one by a decoder without a cache, which
    runs the whole model over all of the context. ratio: of tokens/s, to that one. cache MiB: of
    what is kept of the context. MiB: beside that and the parameters, while tokens are written.
    """
    rows = Table(
        title=f"{options.config}, {config.dtype}: batch {options.batch_size}, "
        f"{options.outputs} tokens written",
        caption=f"ratio: of tokens/s, to the whole model anew for each token. {timing.machine()}",
    )
    headings = ("context", "read/s", "ms", "tokens/s", "anew ms", "ratio", "cache MiB", "MiB")
    for heading in headings:
        rows.add_column(heading, justify="right", no_wrap=True)
    graph, params = nnx.split(DecoderOnly(config, nnx.Rngs(0)))
    # No token has this id, so that no text ends early.
    continuation = Continuation(
        lambda params: nnx.merge(graph, params),
        DecodingConfig(max_length=options.outputs),
        end_id=-1,
        vocab_size=config.num_embeddings,
    )
    model = continuation.apart(params)
    random = np.random.default_rng(0)
    contexts: dict[int, Read] = {}
    programs: dict[tuple[int, str], Program] = {}
    for length in options.lengths:
        size = (options.batch_size, length + 1)
        drawn = random.integers(1, config.vocab_size, size, dtype=np.int32)
        tokens, last = drawn[:, :-1], drawn[:, -1]
        context = read(continuation, model, tokens, (1 + options.repeats) * options.outputs)
        contexts[length] = context
        programs[length, "cached"] = cached(continuation, model, context, last, options.outputs)
        if length <= options.anew:
            programs[length, "anew"] = anew(model, tokens)
    # Those of all lengths in the same rounds, so that their rows can be compared.
    measured = in_turns(programs, options.repeats)
    for length, context in contexts.items():
        token, whole = measured[length, "cached"], measured.get((length, "anew"))
        assert token.median is not None
        rows.add_row(
            f"{length:,}",
            f"{options.batch_size * context.tokens / context.seconds:,.0f}",
            timing.milliseconds(token),
            f"{options.batch_size / token.median:,.1f}",
            "" if whole is None else timing.milliseconds(whole),
            "" if whole is None else timing.times(whole.slowdown(token)),
            f"{context.cache_bytes / 2**20:,.2f}",
            timing.mebibytes(token),
        )
    return rows


def read(continuation: Continuation, model: DecoderOnly, tokens: np.ndarray, behind: int) -> Read:
    """Reads tokens [b, l], for so many to be written behind them; once before it counts."""
    for _ in range(2):
        start = time.perf_counter()
        cache = continuation.empty(model, tokens.shape[0], tokens.shape[1] + behind)
        count, cache = jax.block_until_ready(continuation.read_pieces(model, tokens, cache))
        seconds = time.perf_counter() - start
    cache_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(cache))
    return Read(count, seconds, cache, cache_bytes)


class Program(NamedTuple):
    """What writes tokens, one run after the other; compiled."""

    run: Callable[[], Any]
    outputs: int
    temporary_bytes: int


def cached(
    continuation: Continuation,
    model: DecoderOnly,
    context: Read,
    last: np.ndarray,
    outputs: int,
) -> Program:
    """Writes so many tokens behind a context and a last token [b], and at the next run so many
    behind those."""
    writing = begin(jnp.asarray(last), context.cache)
    given = np.zeros((len(last), outputs), np.int32)
    write = continuation.write.lower(model, writing, given, None, count=outputs).compile()

    def run() -> Writing:
        nonlocal writing
        written, writing = write(model, writing, given, None)
        return written

    return Program(run, outputs, timing.temporary_bytes(write))


def anew(model: DecoderOnly, tokens: np.ndarray) -> Program:
    """Writes one token: the whole model over all of its context, and the last one's logits."""

    def likeliest(model: DecoderOnly, tokens: jax.Array) -> jax.Array:
        logits, _ = model.extend(tokens, model.init_cache(*tokens.shape))
        return jnp.argmax(logits, axis=-1)

    program = jax.jit(likeliest).lower(model, tokens).compile()
    return Program(lambda: program(model, tokens), 1, timing.temporary_bytes(program))


def in_turns(programs: Mapping[K, Program], repeats: int) -> dict[K, timing.Measurement]:
    """The time of a token of each program, after a first run of each that does not count."""
    seconds: dict[K, list[float]] = {name: [] for name in programs}
    for _ in range(1 + repeats):
        for name, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program.run())
            seconds[name].append((time.perf_counter() - start) / program.outputs)
    return {
        name: timing.Measurement(tuple(seconds[name][1:]), program.temporary_bytes)
        for name, program in programs.items()
    }
