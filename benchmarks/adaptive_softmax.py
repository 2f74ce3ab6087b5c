"""The adaptive softmax against the full one over the same weights: time and memory of a loss.

`adaptive` computes a rare band's logits for the targets in it alone, `all bands` for all tokens,
which is the same function; `one matrix` is the ordinary softmax of a table as wide as the model for
all tokens, by blocks. Tokens are drawn by Zipf's law.

python -m benchmarks.adaptive_softmax --help
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.arguments import positive


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.adaptive_softmax", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--tokens", type=positive, nargs="+", default=[1024, 4096])
    parser.add_argument("--vocabulary", type=positive, default=16_000)
    parser.add_argument("--cutoffs", type=positive, nargs="+", default=[1200, 3600])
    parser.add_argument("--factor", type=positive, default=4)
    parser.add_argument("--width", type=positive, default=256)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--repeats", type=positive, default=5, help="rounds to take medians of")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> None:
    """Prints a table with a row for each number of tokens, pass and program."""
    options = parse(argv)
    # Only here, so that --help needs no JAX.
    from rich.console import Console
    from rich.table import Table

    from benchmarks import timing

    table = Table(
        title=f"Softmax over {options.vocabulary:,} tokens, cutoffs "
        f"{', '.join(map(str, options.cutoffs))}, factor {options.factor}: width {options.width}, "
        f"{options.dtype}",
        caption=f"ratios: to adaptive. {timing.machine()}",
    )
    table.add_column("tokens", justify="right")
    table.add_column("pass", no_wrap=True)
    table.add_column("program", no_wrap=True)
    for heading in ("ms", "ratio", "MiB", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    for tokens in options.tokens:
        for direction, programs, arguments in cases(options, tokens):
            measured = timing.measure(programs, arguments, options.repeats)
            adaptive = measured["adaptive"]
            for name, one in measured.items():
                table.add_row(
                    f"{tokens:,}",
                    direction,
                    name,
                    timing.milliseconds(one),
                    timing.times(one.slowdown(adaptive)),
                    timing.mebibytes(one),
                    timing.times(one.temporary_bytes / max(1, adaptive.temporary_bytes)),
                )
    Console().print(table)


def cases(
    options: argparse.Namespace, tokens: int
) -> list[tuple[str, dict[str, Callable[..., Any]], tuple[Any, ...]]]:
    """The name, the competing programs and their arguments, of each pass."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from flax import nnx

    from spade_jax.config.adaptive import AdaptiveConfig
    from spade_jax.layers.adaptive_vocabulary import AdaptiveVocabulary
    from spade_jax.ops.token_scores import token_scores

    config = AdaptiveConfig(tuple(options.cutoffs), options.factor)
    config.check_model(options.vocabulary, options.width)
    vocabulary = AdaptiveVocabulary(config, options.vocabulary, options.width, nnx.Rngs(0))
    graph, state = nnx.split(vocabulary)
    ranks = np.arange(1, options.vocabulary + 1)
    rng = np.random.default_rng(0)
    likely = 1 / ranks / (1 / ranks).sum()
    targets = jnp.asarray(rng.choice(options.vocabulary, (1, tokens), p=likely), jnp.int32)
    states = jnp.asarray(rng.normal(size=(1, tokens, options.width)), options.dtype)
    matrix = vocabulary.embed(jnp.arange(options.vocabulary)[None], jnp.float32)[0]

    def adaptive(state: Any, matrix: jax.Array, states: jax.Array) -> jax.Array:
        scores = nnx.merge(graph, state).scores(states, targets)
        return jnp.sum(scores.log_z - scores.target)

    def all_bands(state: Any, matrix: jax.Array, states: jax.Array) -> jax.Array:
        log_p = nnx.merge(graph, state).log_probabilities(states)
        return -jnp.sum(jnp.take_along_axis(log_p, targets[..., None], axis=-1))

    def one_matrix(state: Any, matrix: jax.Array, states: jax.Array) -> jax.Array:
        scores = token_scores(states, matrix, targets)
        return jnp.sum(scores.log_z - scores.target)

    programs = {"adaptive": adaptive, "all bands": all_bands, "one matrix": one_matrix}
    # Each of the weights that it has.
    weights = {"adaptive": (0, 2), "all bands": (0, 2), "one matrix": (1, 2)}
    backward = {name: jax.grad(program, weights[name]) for name, program in programs.items()}
    arguments = (nnx.to_pure_dict(state), matrix, states)
    return [("forward", programs, arguments), ("backward", backward, arguments)]


if __name__ == "__main__":
    main(sys.argv[1:])
