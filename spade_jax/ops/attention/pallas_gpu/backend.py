"""All that knows what compiles the kernels: Pallas's lowering to Triton.

JAX deprecates it since 0.11, and has Mosaic GPU as its successor; kernels read, write and multiply
by these functions alone, so that it can be exchanged here.
"""

import struct
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl

try:
    from jax.experimental.pallas import triton
except ImportError:  # A JAX that has removed it.
    triton = None  # type: ignore[assignment]

program_id = pl.program_id
num_programs = pl.num_programs


def missing() -> str | None:
    """Why kernels cannot be compiled with this JAX; None where they can."""
    if triton is None:
        return f"needs Pallas's Triton lowering, which jax {jax.__version__} lacks"
    return None


def load(
    ref: Any, first: Any, count: int, *, beyond: float = 0, row: Any = None, whole: bool = False
) -> Array:
    """`count` entries of the first axis from `first` on; those that are not there are `beyond`.

    row: the one that is read of a first axis before that. whole: all of them are there.
    """
    where, there = _entries(ref, first, count, row)
    if there is None or whole:
        return triton.load(where)
    return triton.load(where, mask=there, other=jax.lax.full((), beyond, ref.dtype))


def store(ref: Any, first: Any, values: Array) -> None:
    """Writes entries of the first axis from `first` on, as far as there are any."""
    where, there = _entries(ref, first, values.shape[0], None)
    triton.store(where, values, mask=there)


def _entries(ref: Any, first: Any, count: int, row: Any) -> tuple[Any, Array | None]:
    """A part of a reference, and which of its entries are there; None: all."""
    _, length, *others = (None, *ref.shape) if row is None else ref.shape
    index: tuple[Any, ...] = (pl.ds(first, count), *(slice(None) for _ in others))
    where = ref.at[index if row is None else (row, *index)]
    if length % count == 0:
        return where, None
    there = first + jnp.arange(count, dtype=jnp.int32) < length
    return where, there[:, None] if others else there


def look_up(ref: Any, index: Array) -> Array:
    """Entries of a vector."""
    return triton.load(ref.at[index])


def dot(a: Array, b: Array, *, transposed: bool = False) -> Array:
    """a b, or a b^T, summed up in float32; float32 itself is not rounded to TF32."""
    precision = "highest" if a.dtype == jnp.float32 else None
    return triton.dot(a, b, trans_b=transposed, precision=precision)


def exp2(x: Array, *, interpret: bool) -> Array:
    """2^x of float32, to 2^-22 of its value, and 0 where that is no normal number: a single
    instruction, where the compiler's own takes five for the sake of those numbers."""
    if interpret:
        return jnp.exp2(x)
    return _instruction("ex2.approx.ftz.f32 $0, $1;", x)


def scaled_plus(x: Array, y: Array, *, scale: float, interpret: bool) -> Array:
    """scale x + y of float32, rounded once: one instruction, which the compiler does not make of a
    product and a sum by itself. y broadcasts to x."""
    if interpret:
        return x * scale + y
    (bits,) = struct.unpack("<I", struct.pack("<f", scale))
    return _instruction(f"fma.rn.f32 $0, $1, 0f{bits:08X}, $2;", x, jnp.broadcast_to(y, x.shape))


def _instruction(assembly: str, *arrays: Array) -> Array:
    """One of PTX, applied to each element of float32 arrays of a shape."""
    (result,) = triton.elementwise_inline_asm(
        assembly,
        args=arrays,
        constraints=",".join(["=f", *["f"] * len(arrays)]),
        pack=1,
        result_shape_dtypes=[jax.ShapeDtypeStruct(arrays[0].shape, jnp.float32)],
    )
    return result


def call(
    kernel: Callable[..., None],
    name: str,
    inputs: Any,
    input_blocks: Any,
    outputs: Any,
    output_blocks: Any,
    *,
    grid: tuple[int, ...],
    warps: int,
    stages: int,
    interpret: bool,
) -> Any:
    """Runs a kernel on a grid of programs.

    Args:
      kernel: takes references to the blocks of inputs and outputs, and writes the latter.
      name: by which profiles and compilers call it.
      inputs: a tuple of trees of arrays; outputs: a tuple of `jax.ShapeDtypeStruct`.
      input_blocks, output_blocks: the same trees with a `block` of each.
      warps: of 32 threads, in each program.
      stages: how many tiles a loop has on their way from memory.
      interpret: run it as plain JAX, whatever the platform.
    """
    return pl.pallas_call(
        kernel,
        out_shape=outputs,
        grid=grid,
        in_specs=input_blocks,
        out_specs=output_blocks,
        compiler_params=triton.CompilerParams(num_warps=warps, num_stages=stages),
        interpret=interpret,
        name=name,
    )(*inputs)


def block(shape: tuple[int | None, ...], index: Callable[..., tuple[Any, ...]]) -> Any:
    """What of an array a program sees: this shape, less the axes that are None, at the place that
    `index` gives for the program's place on the grid."""
    return pl.BlockSpec(shape, index)
