"""The three convolutions of a state space, and S4's own: time and memory.

python -m benchmarks.ssm --help

"fft, S4" is what the S4 paper does: the kernel's transform by Cauchy products at the roots of
unity, then its inverse, then the FFT convolution. "fft" is ours: the same convolution with a kernel
that is made by matmuls.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.arguments import positive


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ssm", description=__doc__.partition("\n")[0]
    )
    lengths = [1024, 4096, 16384, 65536]
    parser.add_argument("--lengths", type=positive, nargs="+", default=lengths)
    parser.add_argument("--batch", type=positive, default=1)
    parser.add_argument("--width", type=positive, default=256, help="features d")
    parser.add_argument("--state-size", type=positive, default=64, help="n")
    parser.add_argument("--chunk-length", type=positive, default=64, help="t of chunked")
    parser.add_argument("--repeats", type=positive, default=5, help="rounds to take medians of")
    parser.add_argument(
        "--reference-up-to",
        type=positive,
        default=4096,
        help="the longest sequence of the plain recurrence, which takes its time",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> None:
    """Prints a table with a row for each length, pass and convolution."""
    options = parse(argv)
    # Only here, so that --help needs no JAX.
    from rich.console import Console
    from rich.table import Table

    from benchmarks import timing

    table = Table(
        title=f"S4, batch {options.batch}, {options.width} features, state {options.state_size}",
        caption=f"ratio: to chunked. {timing.machine()}",
    )
    for heading in ("length", "pass", "convolution"):
        table.add_column(heading, no_wrap=True)
    for heading in ("ms", "ratio", "MiB", "ratio"):
        table.add_column(heading, justify="right")
    for length in options.lengths:
        for direction, programs, arguments in cases(options, length):
            measured = timing.measure(programs, arguments, options.repeats)
            chunked = measured["chunked"]
            for name, measurement in measured.items():
                table.add_row(
                    f"{length:,}",
                    direction,
                    name,
                    timing.milliseconds(measurement),
                    timing.times(measurement.slowdown(chunked)),
                    timing.mebibytes(measurement),
                    timing.times(measurement.temporary_bytes / max(1, chunked.temporary_bytes)),
                )
            table.add_section()
    Console().print(table)


def cases(
    options: argparse.Namespace, length: int
) -> list[tuple[str, dict[str, Callable[..., Any]], tuple[Any, ...]]]:
    """The name, the competing programs and their arguments, of each pass."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from benchmarks.cauchy import cauchy_kernel
    from spade_jax.ops.ssm import hippo
    from spade_jax.ops.ssm.convolution import convolve
    from spade_jax.ops.ssm.discrete import StateSpace, discretize, readout
    from spade_jax.ops.ssm.fft import fft_convolve

    rng = np.random.default_rng(0)
    d, n = options.width, options.state_size
    w, p, b, _ = (jnp.asarray(np.tile(x, (d, 1)), jnp.complex64) for x in hippo.legs_nplr(n))
    dt = jnp.asarray(np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), d)), jnp.float32)
    c = jnp.asarray(rng.normal(size=(2, d, n // 2)) * 0.5**0.5, jnp.float32)
    c = jax.lax.complex(c[:1], c[1:])
    u = jnp.asarray(rng.normal(size=(options.batch, length, d)), jnp.float32)
    arguments = (StateSpace(w, p, b, dt), c, u)

    def run(method: str) -> Callable[..., jax.Array]:
        def convolution(system: StateSpace, c: jax.Array, u: jax.Array) -> jax.Array:
            discrete = discretize(system, "bilinear")
            chunk = options.chunk_length
            return convolve(discrete, readout(c), u, method=method, chunk_length=chunk)

        return convolution

    def published(system: StateSpace, c: jax.Array, u: jax.Array) -> jax.Array:
        return fft_convolve(cauchy_kernel(system, c, length)[None], u[None])[0]

    programs = {"chunked": run("chunked"), "fft": run("fft"), "fft, S4": published}
    if length <= options.reference_up_to:
        programs["reference"] = run("reference")

    def gradient(convolution: Callable[..., jax.Array]) -> Callable[..., Any]:
        return jax.grad(lambda *a: jnp.sum(jnp.square(convolution(*a))), (0, 1, 2))

    backward = {name: gradient(convolution) for name, convolution in programs.items()}
    return [("forward", programs, arguments), ("+ backward", backward, arguments)]


if __name__ == "__main__":
    main(sys.argv[1:])
