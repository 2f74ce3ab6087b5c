"""What the TPU's attention kernels have in common: tiles of 128 lanes, and heads in them.

Arrays are [b, l, lanes], as projections give and take them: an array whose last axis is the 64 of a
head would take 128 lanes in memory. A kernel's step has the heads of one group, two of 64 or one of
128 or 256; a head of a pair is told apart by zeros in the lanes of the other, which a matmul of 128
by 128 contracts at no further cost.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental.pallas import tpu as pltpu

from spade_jax.ops.precision import matmul_precision

BLOCK = 128
# A score that is hidden, the least maximum of a query's scores, and the least sum of its weights:
# where nothing is seen, exp(HIDDEN - FLOOR) is zero.
HIDDEN = -1e30
FLOOR = -1e20
TINY = 1e-30
# The segment of keys that no query sees.
NO_SEGMENT = -(2**31)
# Heads are filled up with zeros to one of these.
SIZES = (64, 128, 256)

NN, NT, TN = ((1,), (0,)), ((1,), (1,)), ((0,), (0,))


class Heads(NamedTuple):
    """How heads lie in lanes.

    Attributes:
      size: lanes of a head, of SIZES.
      count: heads, with those that fill up the last group.
    """

    size: int
    count: int

    @property
    def in_group(self) -> int:
        """Heads that a step has."""
        return max(1, BLOCK // self.size)

    @property
    def lanes(self) -> int:
        """Of a group."""
        return self.size * self.in_group

    @property
    def groups(self) -> int:
        return self.count // self.in_group


def heads_of(heads: int, *sizes: int) -> Heads:
    """How so many heads of these sizes (keys and values may differ) lie in lanes."""
    size = next(size for size in SIZES if size >= max(sizes))
    in_group = max(1, BLOCK // size)
    return Heads(size, -(-heads // in_group) * in_group)


def to_lanes(array_blhk: Array, heads: Heads) -> Array:
    """[b, l, h, k] to [b, l, lanes]: no copy where heads and their size fit."""
    _, _, count, size = array_blhk.shape
    filled = ((0, 0), (0, 0), (0, heads.count - count), (0, heads.size - size))
    return lax.collapse(jnp.pad(array_blhk, filled), 2, 4)


def from_lanes(array: Array, heads: Heads, count: int, size: int) -> Array:
    """[b, l, lanes] to [b, l, count, size]."""
    b, length, _ = array.shape
    return array.reshape(b, length, heads.count, heads.size)[:, :, :count, :size]


def filled_up(array: Array, length: int, axis: int) -> Array:
    """The array with zeros behind it up to a length along an axis."""
    padding = [(0, 0)] * array.ndim
    padding[axis] = (0, length - array.shape[axis])
    return jnp.pad(array, padding)


def refuses_arrays(*arrays: Array) -> str | None:
    """Why the kernels cannot take arrays [..., k] of this kind, or None."""
    for array in arrays:
        if array.dtype not in (jnp.float32, jnp.bfloat16):
            return f"takes no {array.dtype}: float32 or bfloat16"
        if array.shape[-1] > SIZES[-1]:
            return f"takes no heads of {array.shape[-1]}: {SIZES[-1]} at most"
    return None


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
    """x [rows, lanes], for each head with zeros in the lanes of the others."""
    if heads.in_group == 1:
        return [x]
    first = lax.broadcasted_iota(jnp.int32, x.shape, 1) < heads.size
    wide = x.astype(jnp.float32)  # Masks are of 32 bits.
    return [
        jnp.where(first, wide, 0.0).astype(x.dtype),
        jnp.where(first, 0.0, wide).astype(x.dtype),
    ]


def heads_together(parts: list[Array], heads: Heads) -> Array:
    """Of float32 [rows, lanes] for each head, its own lanes."""
    if heads.in_group == 1:
        return parts[0]
    first = lax.broadcasted_iota(jnp.int32, parts[0].shape, 1) < heads.size
    return jnp.where(first, *parts)


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


def kernel_parameters(vmem_bytes: int) -> pltpu.CompilerParams:
    """Groups of heads may go to either core of a chip; what follows adds to what went before."""
    return pltpu.CompilerParams(
        dimension_semantics=("parallel", "arbitrary", "arbitrary"), vmem_limit_bytes=vmem_bytes
    )


def like(array: Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)
