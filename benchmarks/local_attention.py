"""Window attention against dense attention under the same mask: time and memory.

The backward pass is timed together with the forward pass that it needs.

python -m benchmarks.local_attention --help
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.arguments import positive


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.local_attention", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--lengths", type=positive, nargs="+", default=[1024, 2048, 4096, 16384])
    parser.add_argument("--batch", type=positive, default=1)
    parser.add_argument("--heads", type=positive, default=12)
    parser.add_argument("--head-dim", type=positive, default=64)
    parser.add_argument("--radius", type=positive, default=127)
    parser.add_argument("--causal", action="store_true", help="see no key ahead")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--repeats", type=positive, default=5, help="rounds to take medians of")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> None:
    """Prints a table with a row for each length and pass."""
    options = parse(argv)
    # Only here, so that --help needs no JAX.
    from rich.console import Console
    from rich.table import Table

    from benchmarks import timing

    table = Table(
        title=f"Window attention, radius {options.radius}{', causal' if options.causal else ''}: "
        f"batch {options.batch}, {options.heads} heads of {options.head_dim}, {options.dtype}",
        caption=f"ratio: dense / window. {timing.machine()}",
    )
    table.add_column("length", justify="right")
    table.add_column("pass", no_wrap=True)
    for heading in ("window\nms", "dense\nms", "ratio", "window\nMiB", "dense\nMiB", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    for length in options.lengths:
        for direction, programs, arguments in cases(options, length):
            measured = timing.measure(programs, arguments, options.repeats)
            window, dense = measured["window"], measured["dense"]
            table.add_row(
                f"{length:,}",
                direction,
                timing.milliseconds(window),
                timing.milliseconds(dense),
                timing.times(dense.slowdown(window)),
                timing.mebibytes(window),
                timing.mebibytes(dense),
                timing.times(dense.temporary_bytes / max(1, window.temporary_bytes)),
            )
    Console().print(table)


def cases(
    options: argparse.Namespace, length: int
) -> list[tuple[str, dict[str, Callable[..., Any]], tuple[Any, ...]]]:
    """The name, the competing programs and their arguments, of each pass."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from spade_jax.ops.attention.softmax import softmax_attention
    from spade_jax.ops.attention.window import window_attention

    def window(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        return window_attention(query, key, value, radius=options.radius, causal=options.causal)

    def dense(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        position = jnp.arange(length)
        relative = position[None, :] - position[:, None]
        visible = (abs(relative) <= options.radius) & ((relative <= 0) | (not options.causal))
        attended, _ = softmax_attention(
            *(array.swapaxes(1, 2) for array in (query, key, value)),
            visible=visible[None, None],
            bias=None,
        )
        return attended.swapaxes(1, 2)

    def gradient(attention: Callable[..., jax.Array]) -> Callable[..., Any]:
        def total(*arrays: jax.Array) -> jax.Array:
            return jnp.sum(jnp.square(attention(*arrays).astype(jnp.float32)))

        return jax.grad(total, (0, 1, 2))

    rng = np.random.default_rng(0)
    shape = (options.batch, length, options.heads, options.head_dim)
    query, key, value = (jnp.asarray(rng.normal(size=shape), options.dtype) for _ in range(3))
    arguments = (query * options.head_dim**-0.5, key, value)
    programs: dict[str, Callable[..., Any]] = {"window": window, "dense": dense}
    backward = {name: gradient(attention) for name, attention in programs.items()}
    return [("forward", programs, arguments), ("backward", backward, arguments)]


if __name__ == "__main__":
    main(sys.argv[1:])
