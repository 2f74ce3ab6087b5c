"""A language model that writes behind contexts of several lengths: time and memory of a token.

`python -m benchmarks.decode --config=configs/pretrain/lm_quickstart.py`
"""

import argparse
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.table import Table

from benchmarks import timing
from spade_jax.config import DecoderOnlyConfig
from spade_jax.decoding.config import DecodingConfig
from spade_jax.decoding.continuation import Continuation
from spade_jax.decoding.sampling import begin
from spade_jax.models.decoder_only import DecoderOnly


class Context(NamedTuple):
    """What was measured behind a context of one length.

    Attributes:
      cache_bytes: of what is kept of the context.
      read_seconds: of reading it, in pieces.
      written: writing one token, given its cache.
      anew: the same token by the whole model over all of the context; None where it was not run.
    """

    cache_bytes: int
    read_seconds: float
    written: timing.Measurement
    anew: timing.Measurement | None


def table(options: argparse.Namespace, config: DecoderOnlyConfig) -> Table:
    """A row for each length of the context.

    cache MiB: of what is kept of the context. MiB: beside that and the parameters, while a token is
    written. tokens/s: of all rows of the batch. ratio: of tokens/s, to a decoder without a cache,
    which runs the whole model over all of the context for each token.
    """
    rows = Table(
        title=f"{options.config}, {config.dtype}: batch {options.batch_size}, "
        f"{options.outputs} tokens written greedily",
        caption=f"ratio: to the whole model run anew for each token. {timing.machine()}",
    )
    headings = ("context", "read tokens/s", "ms a token", "tokens/s", "anew ms", "ratio")
    for heading in (*headings, "cache MiB", "MiB"):
        rows.add_column(heading, justify="right", no_wrap=True)
    model = DecoderOnly(config, nnx.Rngs(0))
    for length in options.lengths:
        context = measured(model, options, length)
        token, anew = context.written, context.anew
        assert token.median is not None
        rows.add_row(
            f"{length:,}",
            f"{options.batch_size * length / context.read_seconds:,.0f}",
            f"{1e3 * token.median:,.2f}",
            f"{options.batch_size / token.median:,.1f}",
            "" if anew is None else timing.milliseconds(anew),
            "" if anew is None else timing.times(token.slowdown(anew)),
            f"{context.cache_bytes / 2**20:,.2f}",
            timing.mebibytes(token),
        )
    return rows


def measured(model: DecoderOnly, options: argparse.Namespace, length: int) -> Context:
    """Reads a context of random tokens and writes behind it, again and again."""
    config, rows, outputs = model.config, options.batch_size, options.outputs
    graph, params = nnx.split(model)
    # No token has this id, so that no text ends early.
    continuation = Continuation(
        lambda params: nnx.merge(graph, params),
        DecodingConfig(max_length=outputs),
        end_id=-1,
        vocab_size=config.vocab_size,
    )
    apart = continuation.apart(params)
    random = np.random.default_rng(0)
    tokens = random.integers(1, config.vocab_size, (rows, length), dtype=np.int32)

    def read() -> Any:
        cache = continuation.empty(apart, rows, length + (1 + options.repeats) * outputs)
        return jax.block_until_ready(continuation.read_pieces(apart, tokens, cache)[1])

    read()
    start = time.perf_counter()
    cache = read()
    read_seconds = time.perf_counter() - start
    cache_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(cache))

    given = np.zeros((rows, outputs), np.int32)
    writing = begin(jnp.asarray(tokens[:, -1]), cache)
    write = continuation.write.lower(apart, writing, given, None, count=outputs).compile()
    anew = None
    if length <= options.anew:
        anew = jax.jit(whole_model).lower(params, tokens).compile()
    each: dict[str, list[float]] = {"written": [], "anew": []}
    # The first round does not count.
    for _ in range(1 + options.repeats):
        start = time.perf_counter()
        _, writing = jax.block_until_ready(write(apart, writing, given, None))
        each["written"].append((time.perf_counter() - start) / outputs)
        if anew is not None:
            start = time.perf_counter()
            jax.block_until_ready(anew(params, tokens))
            each["anew"].append(time.perf_counter() - start)
    return Context(cache_bytes, read_seconds, measurement, anew)
