"""Writing outputs, greedily and by beam search, against a decoder without a cache: tokens/s.

python -m benchmarks.decode --help

"uncached greedy" is what a decoder without a cache does: for each token all of it runs anew on the
tokens so far, and makes the keys and values of the encoded input anew. The tokens so far are filled
up to a fixed length, so that one compiled loop writes them all. The encoder runs once, whatever the
method: it is timed apart and is in no method's time.

Of a language model, which a configuration names, it is the time and the memory of a token behind
contexts of several lengths; see `benchmarks.continuation`.
"""

import argparse
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.arguments import positive
from pretrain.config import PretrainConfig
from spade_jax.config import (
    ConfigError,
    DecoderOnlyConfig,
    EncoderDecoderConfig,
    TokenModelConfig,
    of_kind,
    require,
)
from spade_jax.config.file import parse_overrides, read_config
from spade_jax.models.presets import preset

BEAMS = 4
# The names of the programs, which the table prints.
ENCODER, UNCACHED, GREEDY = "encoder", "uncached greedy", "greedy"
BEAM_SEARCH = f"beam search, {BEAMS}"


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, TokenModelConfig]:
    """The options, and the model that they name."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.decode",
        description=__doc__.partition("\n")[0],
        epilog="Settings of a configuration are overridden as in pretrain: "
        "--config.model.dtype=bfloat16.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--lengths",
        type=positive,
        nargs="+",
        help="of the input, or of a language model's context; default: 1024 4096 16384, and of "
        "the latter 100000",
    )
    parser.add_argument("--outputs", type=positive, default=64, help="tokens written in each row")
    parser.add_argument("--batch-size", type=positive, default=1)
    named = parser.add_mutually_exclusive_group()
    named.add_argument("--config", metavar="FILE", help="of a pre-training's model")
    named.add_argument("--preset", default="tiny", help="tiny (default), small, base or large")
    parser.add_argument("--vocab-size", type=positive, default=32128, help="of a preset")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="of a preset"
    )
    parser.add_argument(
        "--anew",
        type=positive,
        default=4096,
        metavar="LENGTH",
        help="the longest context over which a language model is run anew, too (default: 4096)",
    )
    parser.add_argument("--repeats", type=positive, default=5, help="rounds to take medians of")
    options, rest = parser.parse_known_args(argv)
    overrides = parse_overrides(rest, parser)
    try:
        if options.config is None:
            require(not overrides, "--config", None, "must name what is to be overridden")
            model: TokenModelConfig = preset(
                options.preset, vocab_size=options.vocab_size, dtype=options.dtype
            )
        else:
            # Only here, for it reads vocabularies.
            from pretrain.learning import with_vocabulary

            config = read_config(options.config, overrides, PretrainConfig, "pretrain")
            model = of_kind(with_vocabulary(config).own_model, TokenModelConfig)
        smallest = f"must be at least {BEAMS}, the number of beams"
        require(model.num_embeddings >= BEAMS, "--vocab-size", model.num_embeddings, smallest)
    except ConfigError as error:
        parser.error(str(error))
    if options.lengths is None:
        longest = [100_000] if isinstance(model, DecoderOnlyConfig) else []
        options.lengths = [1024, 4096, 16384, *longest]
    return options, model


def main(argv: Sequence[str]) -> None:
    """Prints the table of an encoder-decoder's methods, or of a language model's contexts."""
    options, model = parse(argv)
    # Only here, so that --help needs no JAX.
    from rich.console import Console

    if isinstance(model, DecoderOnlyConfig):
        from benchmarks import continuation

        table = continuation.table(options, model)
    else:
        table = methods_table(options, of_kind(model, EncoderDecoderConfig))
    Console().print(table)


def methods_table(options: argparse.Namespace, model: EncoderDecoderConfig) -> Any:
    """A row for each length and method, and for the encoder of each length.

    ms: of the whole program. ms a token: that over the tokens of a row, so that what a method makes
    once of the encoded input, the keys and values, is shared among them. tokens/s: of all rows of
    the batch; of beam search those of the one output a row that it returns.
    """
    from rich.table import Table

    from benchmarks import timing

    table = Table(
        title=f"Decoder of {options.config or options.preset}, {model.dtype}, vocabulary "
        f"{model.vocab_size:,}: batch {options.batch_size}, {options.outputs} tokens written",
        caption=f"ratio: of tokens/s, to {UNCACHED}. {timing.machine()}",
    )
    table.add_column("length", justify="right", no_wrap=True)
    table.add_column("method", no_wrap=True)
    for heading in ("ms", "ms a token", "tokens/s", "ratio", "MiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for length in options.lengths:
        programs, arguments = competitors(model, length, options.outputs, options.batch_size)
        measured = timing.measure(programs, arguments, options.repeats)
        for name, measurement in measured.items():
            a_token = tokens_a_second = ratio = ""
            if name != ENCODER and measurement.median is not None:
                a_token = f"{1e3 * measurement.median / options.outputs:,.1f}"
                tokens = options.batch_size * options.outputs
                tokens_a_second = f"{tokens / measurement.median:,.1f}"
                # All methods write as many tokens: the faster one is the one that takes less time.
                ratio = timing.times(measured[UNCACHED].slowdown(measurement))
            table.add_row(
                f"{length:,}",
                name,
                timing.milliseconds(measurement),
                a_token,
                tokens_a_second,
                ratio,
                timing.mebibytes(measurement),
            )
        table.add_section()
    return table


def competitors(
    config: EncoderDecoderConfig, length: int, outputs: int, batch_size: int
) -> tuple[dict[str, Callable[..., Any]], tuple[Any, ...]]:
    """The encoder and the methods, of a model with random parameters, and their arguments.

    All take (parameters, inputs int32 [b, length], encoded [b, length, d]). The encoder returns
    encoded, each method the tokens int32 [b, outputs] that it writes.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np
    from flax import nnx

    from spade_jax.decoding.config import DecodingConfig
    from spade_jax.decoding.generate import generate
    from spade_jax.models.encoder_decoder import EncoderDecoder

    def encode(params: Any, inputs: jax.Array, *_: jax.Array) -> jax.Array:
        model: EncoderDecoder = nnx.merge(graph, params)
        return model.encode(inputs, segment_ids=segments(inputs))

    def uncached(params: Any, inputs: jax.Array, encoded: jax.Array) -> jax.Array:
        model: EncoderDecoder = nnx.merge(graph, params)

        def write(index: jax.Array, tokens: jax.Array) -> jax.Array:
            # What is not written yet is there as zeros, which causal attention does not see.
            shifted = jnp.pad(tokens, ((0, 0), (1, 0)))[:, :-1]
            logits = model.decode(shifted, encoded, encoded_segment_ids=segments(inputs))
            likeliest = jnp.argmax(logits[:, index], axis=-1).astype(jnp.int32)
            return jax.lax.dynamic_update_index_in_dim(tokens, likeliest, index, axis=1)

        return jax.lax.fori_loop(0, outputs, write, jnp.zeros((batch_size, outputs), jnp.int32))

    def cached(beams: int) -> Callable[..., jax.Array]:
        decoding = DecodingConfig(max_length=outputs, beams=beams)

        def method(params: Any, inputs: jax.Array, encoded: jax.Array) -> jax.Array:
            model: EncoderDecoder = nnx.merge(graph, params)
            # `generate` runs the encoder as well; here it finds that done.
            decoder: Any = types.SimpleNamespace(
                encode=lambda *_, **__: encoded,
                decoder=model.decoder,
                init_cache=model.init_cache,
                extend=model.extend,
            )
            # No token has this id, so that no output ends early.
            return generate(decoder, inputs, decoding, end_id=-1, vocab_size=config.num_embeddings)[
                0
            ]

        return method

    def segments(inputs: jax.Array) -> jax.Array:
        return (inputs != 0).astype(jnp.int32)

    graph, params = nnx.split(EncoderDecoder(config, nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    inputs = rng.integers(1, config.vocab_size, (batch_size, length), dtype=np.int32)
    arguments = (params, inputs, jax.jit(encode)(params, inputs))
    methods = {UNCACHED: uncached, GREEDY: cached(1), BEAM_SEARCH: cached(BEAMS)}
    return {ENCODER: encode, **methods}, arguments


if __name__ == "__main__":
    main(sys.argv[1:])
