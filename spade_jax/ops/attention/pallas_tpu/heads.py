"""How heads lie in lanes.

Arrays are [b, l, lanes], as projections give and take them: an array whose last axis is the 64 of
a head would take 128 lanes in memory. A kernel's step has the heads of one group: two of 64, or one
of 128 or 256.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

BLOCK = 128
# Heads are filled up with zeros to one of these.
SIZES = (64, 128, 256)


class Heads(NamedTuple):
    """Heads, and how they lie in lanes.

    Attributes:
      number: how many.
      features: of a head.
    """

    number: int
    features: int

    @property
    def size(self) -> int:
        """Lanes of a head, of SIZES."""
        return next(size for size in SIZES if size >= self.features)

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
        return -(-self.number // self.in_group)

    @property
    def total(self) -> int:
        """Heads with those that fill up the last group."""
        return self.groups * self.in_group


def to_lanes(array: Array, heads: Heads, length: int) -> Array:
    """[b, l, all features] to [b, length, lanes of all groups], filled up with zeros."""
    b, own_length, _ = array.shape
    if (heads.total, heads.size) != heads:
        array = array.reshape(b, own_length, *heads)
        filled = ((0, 0), (0, 0), (0, heads.total - heads.number), (0, heads.size - heads.features))
        array = lax.collapse(jnp.pad(array, filled), 2, 4)
    return filled_up(array, length, axis=1)


def from_lanes(array: Array, heads: Heads, length: int) -> Array:
    """`to_lanes` undone: [b, l, all features]."""
    array = array[:, :length]
    if (heads.total, heads.size) == heads:
        return array
    array = array.reshape(array.shape[0], length, heads.total, heads.size)
    return lax.collapse(array[:, :, : heads.number, : heads.features], 2, 4)


def alike(*arrays_blhk: Array) -> list[Array]:
    """[b, l, h, k] to [b, l, all features], where keys and values differ in size filled up."""
    features = max(array.shape[-1] for array in arrays_blhk)
    return [lax.collapse(filled_up(array, features, axis=3), 2, 4) for array in arrays_blhk]


def by_group(array_bhl: Array, heads: Heads, length: int) -> Array:
    """[b, h, l] to [b, groups, heads of a group, length], filled up with zeros."""
    array = filled_up(filled_up(array_bhl, heads.total, axis=1), length, axis=2)
    return array.reshape(array.shape[0], heads.groups, heads.in_group, length)


def from_group(array: Array, heads: Heads, length: int) -> Array:
    """`by_group` undone: [b, h, l]."""
    return lax.collapse(array, 1, 3)[:, : heads.number, :length]


def filled_up(array: Array, length: int, axis: int) -> Array:
    """The array with zeros behind it up to a length along an axis."""
    padding = [(0, 0)] * array.ndim
    padding[axis] = (0, length - array.shape[axis])
    return jnp.pad(array, padding)
