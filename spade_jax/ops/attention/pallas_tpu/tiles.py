"""What both kernels do with tiles."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental.pallas import tpu as pltpu

from spade_jax.ops.attention.pallas_tpu.heads import BLOCK, Heads
from spade_jax.ops.precision import matmul_precision
from spade_jax.ops.tpu import VMEM_BYTES

# A score that is hidden, the least maximum of a query's scores, and the least sum of its weights:
# where nothing is seen, exp(HIDDEN - FLOOR) is zero.
HIDDEN = -1e30
FLOOR = -1e20
TINY = 1e-30
# The segment of keys that no query sees.
NO_SEGMENT = -(2**31)
NN, NT = ((1,), (0,)), ((1,), (1,))


def dot(a: Array, b: Array, contracted: Any) -> Array:
    """A matmul of two tiles, summed up in float32."""
    return lax.dot_general(
        a,
        b,
        (contracted, ((), ())),
        preferred_element_type=jnp.float32,
        precision=matmul_precision(a.dtype),
    )


def heads_apart(x: Array, heads: Heads) -> list[Array]:
    """x [rows, lanes], for each head with zeros in the lanes of the other: a matmul contracts 128
    lanes at a time anyway."""
    if heads.in_group == 1:
        return [x]
    first = lax.broadcasted_iota(jnp.int32, x.shape, 1) < heads.size
    wide = x.astype(jnp.float32)  # Masks are of 32 bits.
    return [
        jnp.where(first, wide, 0.0).astype(x.dtype),
        jnp.where(first, 0.0, wide).astype(x.dtype),
    ]


def skewed(x: Array, sign: int) -> Array:
    """x [128, n] with row r rotated by r lanes, to the right (sign 1) or to the left (-1)."""
    rows, n = x.shape
    row = lax.broadcasted_iota(jnp.int32, x.shape, 0)
    shift = 1
    while shift < rows:
        rotated = pltpu.roll(x, shift if sign > 0 else n - shift, 1)
        x = jnp.where((row & shift) != 0, rotated, x)
        shift *= 2
    return x


def column(row: Array) -> Array:
    """[1, 128] to [128, 128], its entries down the rows and the same in all lanes."""
    return jnp.broadcast_to(row, (BLOCK, BLOCK)).T


def turned(x: Array) -> Array:
    """x^T; the unit for it takes float32."""
    return x.astype(jnp.float32).T.astype(x.dtype)


def kernel_parameters() -> pltpu.CompilerParams:
    """Groups of heads may go to either core of a chip; what follows adds to what went before."""
    return pltpu.CompilerParams(
        dimension_semantics=("parallel", "arbitrary", "arbitrary"), vmem_limit_bytes=VMEM_BYTES
    )


def like(array: Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)
