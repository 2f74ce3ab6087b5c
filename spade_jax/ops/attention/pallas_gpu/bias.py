"""Biases by the distance of key and query: a table that kernels look up, and its gradient."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from spade_jax.ops.attention.pallas_gpu import backend
from spade_jax.ops.attention.pallas_gpu.plan import Plan
from spade_jax.ops.toeplitz import sums_of_diagonals

LOG2E = float(np.log2(np.e))
# Of the table, so that tiles of it are read two numbers at a time. More at once would bypass the
# first cache, and biases would come from the second as often as keys and values.
_COPIES = 2


def margin(plan: Plan) -> int:
    """Entries of the table before and behind those of the bias: as far as a tile reaches of which
    some distance is within the bias's reach."""
    tiles = plan.tiles
    widest = max(sum(tile[:2]) for tile in (tiles.forward, tiles.dq, tiles.dkv))
    return max(widest, 3 * tiles.bias.queries)


def _width(plan: Plan) -> int:
    """Of one copy of the table, a multiple of 16."""
    assert plan.reach is not None
    return -(-(2 * (plan.reach + margin(plan)) + 4) // 16) * 16


def bias_table(plan: Plan, bias: Array | None, heads: int) -> Array | None:
    """The bias [h, 2 * reach + 1] and what lies beyond it, times log2(e): float32 [h, n].

    What may not be seen has -inf, so that windows and causal masks cost nothing beside the bias.
    Distances go up, and then down again, each in _COPIES that are shifted by a place each: a row of
    a tile reads the one in which it starts at a multiple of so many numbers.
    """
    if plan.reach is None:
        return None
    if bias is None:
        bias = jnp.zeros((heads, 2 * plan.reach + 1))
    beyond, width = margin(plan), _width(plan)
    table = jnp.pad(bias.astype(jnp.float32) * LOG2E, ((0, 0), (beyond, beyond)), mode="edge")
    distance = np.arange(-plan.reach - beyond, plan.reach + beyond + 1)
    seen = np.ones(distance.shape, bool)
    if plan.behind is not None:
        seen &= distance >= -plan.behind
    if plan.ahead is not None:
        seen &= distance <= plan.ahead
    table = jnp.where(seen[None], table, -jnp.inf)
    both = jnp.stack([table, table[:, ::-1]], axis=1)
    both = jnp.pad(both, ((0, 0), (0, 0), (0, width + _COPIES - 1 - both.shape[2])))
    copies = jnp.stack([both[:, :, shift : shift + width] for shift in range(_COPIES)], axis=2)
    return copies.reshape(heads, -1)


def look_up(plan: Plan, table_ref: Any, lines: Array, along: Array, by_key: bool) -> Array:
    """A tile of the table, [lines, along], of distances along - lines, or lines - along if
    `by_key`."""
    assert plan.reach is not None
    start = plan.reach + margin(plan) - lines
    shift = start & (_COPIES - 1)
    # Shifted there and back, the compiler knows that it is a multiple of them.
    bits = jnp.int32(_COPIES.bit_length() - 1)
    start = lax.shift_left(lax.shift_right_arithmetic(start, bits), bits)
    start = start + shift * _width(plan) + (_COPIES * _width(plan) if by_key else 0)
    return backend.look_up(table_ref, start[:, None] + along[None, :])


def beyond_reach(plan: Plan, table_ref: Any, ahead: bool) -> Array:
    """The one bias of all keys beyond the reach, behind the query or ahead."""
    assert plan.reach is not None
    return table_ref[margin(plan) + (2 * plan.reach if ahead else 0)]


def exact_distances(plan: Plan) -> tuple[int, int]:
    """How far behind and ahead of a query each distance has a bias, and a gradient, of its own."""
    assert plan.reach is not None
    if plan.behind is not None and plan.ahead is not None:
        return plan.behind, plan.ahead
    return plan.reach - 1, plan.reach - 1 if plan.ahead is None else min(plan.ahead, plan.reach - 1)


def offsets_of_tiles(plan: Plan, offset: Any) -> tuple[Any, int]:
    """The least difference of the numbers of two tiles, of keys and queries, that has such
    distances, and how many differences there are."""
    size = plan.tiles.bias.queries
    behind, ahead = exact_distances(plan)
    if isinstance(offset, int):
        first = (-behind - offset) // size
        return first, (ahead - offset + size - 1) // size - first + 1
    return jnp.floor_divide(-behind - offset, size), (behind + ahead + 2 * size - 2) // size + 1


def bias_gradient(plan: Plan, tiles_htqj: Array, edges: tuple[Array, ...], offset: Any) -> Array:
    """The gradient [h, 2 * reach + 1].

    Args:
      tiles_htqj: gradients of the scores, summed over tiles of equal difference (see
        `offsets_of_tiles`).
      edges: sums of those of keys beyond the reach, [h]: behind, and if not causal ahead.
    """
    assert plan.reach is not None
    heads, _, size, _ = tiles_htqj.shape
    first, _ = offsets_of_tiles(plan, offset)
    sums = jnp.pad(sums_of_diagonals(tiles_htqj), ((0, 0), (0, 0), (0, 1)))
    # Neighbouring tiles have all but one of their distances in common with the next two.
    low, high = (
        jnp.pad(sums[:, :, part], ((0, 0), more, (0, 0)))
        for part, more in (
            (slice(0, size), (0, 1)),
            (slice(size, None), (1, 0)),
        )
    )
    sums = (low + high).reshape(heads, -1)
    behind, ahead = exact_distances(plan)
    start = -behind - first * size - offset + size - 1
    exact = lax.dynamic_slice_in_dim(sums, start, behind + ahead + 1, axis=1)
    exact = jnp.pad(exact, ((0, 0), (plan.reach - behind, plan.reach - ahead)))
    for edge, place in zip(edges, (0, 2 * plan.reach)):
        exact = exact.at[:, place].add(edge)
    return exact
