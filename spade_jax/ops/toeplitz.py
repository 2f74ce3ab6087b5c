"""Matrices whose entries depend on the difference of row and column alone."""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from spade_jax import partition

# The side of a tile of what TPUs hold.
_SIDE = 128
# Beyond it, times nothing is no longer nothing.
_LARGEST = 2.0**126
# How many rows are shifted and added at a time.
_ROWS = 8


def toeplitz(diagonals: Array, rows: int) -> Array:
    """[..., rows + columns - 1] to [..., rows, columns], T_rc = diagonals_{rows - 1 - r + c}.

    Without a gather, nor a scatter in its gradient. For a TPU it is made of tiles, and what is not
    between -2 ** 126 and 2 ** 126 becomes these.
    """
    if partition.platform() == "tpu":
        return _by_tiles(diagonals, rows)
    return _by_reshaping(diagonals, rows)


def sums_of_diagonals(matrix: Array) -> Array:
    """[..., rows, columns] to [..., rows + columns - 1], in the order of `toeplitz`: its transpose.

    A few rows are shifted and added to one, then a few of these, and so on. To sum up columns of
    what has been skewed, as the gradient of reshaping would, takes a CPU some ten times as long.
    """
    *lead, rows, columns = matrix.shape
    none, distance = [(0, 0)] * len(lead), 1
    while matrix.shape[-2] > 1:
        few = min(_ROWS, matrix.shape[-2])
        # Rows of nothing above do not move the others.
        above = -matrix.shape[-2] % few
        matrix = jnp.pad(matrix, (*none, (above, 0), (0, 0)))
        matrix = matrix.reshape(*lead, -1, few, matrix.shape[-1])
        shifted = [
            jnp.pad(matrix[..., i, :], (*none, (0, 0), ((few - 1 - i) * distance, i * distance)))
            for i in range(few)
        ]
        matrix, distance = sum(shifted[1:], start=shifted[0]), few * distance
    return matrix[..., 0, : rows + columns - 1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _by_reshaping(diagonals: Array, rows: int) -> Array:
    """The vector is repeated with a period one longer than the rows, so that each row comes out one
    place further to the right."""
    *lead, length = diagonals.shape
    ring = jnp.concatenate([diagonals, jnp.zeros_like(diagonals[..., :1])], axis=-1)
    repeated = jnp.broadcast_to(ring[..., None, :], (*lead, rows, length + 1))
    skewed = repeated.reshape(*lead, -1)[..., : rows * length].reshape(*lead, rows, length)
    return skewed[..., rows - 1 :]


_by_reshaping.defvjp(
    lambda diagonals, rows: (_by_reshaping(diagonals, rows), None),
    lambda rows, _, gradient: (sums_of_diagonals(gradient),),
)


def _by_tiles(diagonals: Array, rows: int) -> Array:
    """Tiles along a diagonal are the same: there are as few as rows and columns of them together.
    Each is the product of its diagonals and zeros and ones, exact in float32; reshaping would move
    every number, for tiles of memory do not go on at the end of a row."""
    *lead, length = diagonals.shape
    columns = length - rows + 1
    side = min(_SIDE, max(rows, columns))
    down, across = -(-rows // side), -(-columns // side)
    # With the rows and columns that fill up the last tiles.
    beyond = (down * side - rows, across * side - columns + 1)
    filled = jnp.pad(diagonals, (*[(0, 0)] * len(lead), beyond))
    pieces = jnp.clip(filled, -_LARGEST, _LARGEST).reshape(*lead, down + across, side)
    # Of a tile, from its lower left corner to the upper right one.
    windows = jnp.concatenate([pieces[..., :-1, :], pieces[..., 1:, :]], axis=-1)
    row, column = jnp.arange(side)[:, None], jnp.arange(side)[None]
    place = jnp.arange(2 * side)[:, None, None]
    one_hot = (place == (side - 1 - row + column)[None]).astype(diagonals.dtype)
    tiles = jnp.einsum("...od,drc->...roc", windows, one_hot, precision="highest")
    rows_of_tiles = [
        tiles[..., down - 1 - i : down - 1 - i + across, :].reshape(*lead, side, across * side)
        for i in range(down)
    ]
    return jnp.concatenate(rows_of_tiles, axis=-2)[..., :rows, :columns]
