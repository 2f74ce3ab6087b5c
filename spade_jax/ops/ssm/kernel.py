"""The kernel of a discrete state space, and what it does to a block of tokens, as matrices.

Over a block of t tokens, with the state x that enters it,

    y_i = sum_{j <= i} K_{i-j} u_j + (C A^{i+1}) x        matrices and read
    x'  = A^t x + sum_j (A^{t-1-j} B) u_j                  transition and write

and from right to left, where a token sees those behind it alone,

    y_i = sum_{j > i} K_{j-i-1} u_j + (C A^{t-1-i}) x
    x'  = A^t x + sum_j (A^j B) u_j

The powers meet B and C one step after the other, O(n) a step, or by doubling, A^{2^k} times all rows
before: `transition.goes_in_steps` says where. Both are as stable as the recurrence, since A contracts
and A^{2^k} is kept as what it differs from I by.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from spade_jax.ops.ssm.discrete import DiscreteStateSpace
from spade_jax.ops.ssm.sequence import by_feature
from spade_jax.ops.ssm.transition import Dense, Diagonal, Transition, einsum, goes_in_steps, iterate
from spade_jax.ops.toeplitz import toeplitz

# What rematerialisation may keep: operators, states and outputs of state spaces (`checkpoint_name`).
STATE_SPACE = "state space"


def keep(tree: Any) -> Any:
    """A tree of arrays by the name of what rematerialisation may keep."""
    return jax.tree.map(lambda x: checkpoint_name(x, STATE_SPACE), tree)


class Powers:
    """A, A^2, A^4, …, each made once, when it is asked for."""

    def __init__(self, a: Transition):
        self.a = a
        self._squares: list[Dense | Diagonal] = []

    def __getitem__(self, k: int) -> Dense | Diagonal:
        """A^(2^k)."""
        if not self._squares:
            self._squares.append(self.a.dense())
        while len(self._squares) <= k:
            self._squares.append(keep(self._squares[-1].power(2)))
        return self._squares[k]

    def rows(self, c: jax.Array, count: int) -> jax.Array:
        """c A^j, j < count, for c [d, ..., n]: [d, count, ..., n]."""
        return self._successive(c, count, lambda a: a.apply_left)

    def columns(self, b: jax.Array, count: int) -> jax.Array:
        """A^j b, j < count, for b [d, ..., n]: [d, count, ..., n]."""
        return self._successive(b, count, lambda a: a.apply)

    def _successive(self, x: jax.Array, count: int, side: Callable[[Any], Any]) -> jax.Array:
        if goes_in_steps():
            steps = iterate(lambda x: by_feature(side(self.a), x), x, count)
            return jnp.moveaxis(steps, 0, 1)
        found, k = x[:, None], 0
        while found.shape[1] < count:
            new = by_feature(side(self[k]), found[:, : count - found.shape[1]])
            found, k = keep(jnp.concatenate([found, new], axis=1)), k + 1
        return found


class BlockOperators(NamedTuple):
    """Of blocks of t tokens of d features, for s directions and c readouts in each.

    matrices and read have their outputs last, channel by channel: c t of them.
    """

    matrices: jax.Array  # [d, t, c t]: from inputs to outputs, all directions added up
    write: jax.Array  # [d, s, t, n]: from inputs to the state that leaves the block
    read: jax.Array  # [d, s, n, c t]: from the state that enters the block to outputs
    transition: Dense | Diagonal  # A^t


def block_operators(
    system: DiscreteStateSpace, c: jax.Array, t: int, directions: Sequence[int]
) -> BlockOperators:
    """The operators of a block of t tokens.

    Args:
      c: readouts [s, c, d, n] of each direction.
      directions: 1 where what a token sees is to its left, itself included; -1 where it is to its
        right.
    """
    powers = Powers(system.a)
    c = jnp.moveaxis(c, 2, 0)  # [d, s, c, n]
    # The nearest token reads the entering state one step later from the left, at once from the
    # right.
    nearest = [
        by_feature(system.a.apply_left, c[:, s]) if direction == 1 else c[:, s]
        for s, direction in enumerate(directions)
    ]
    rows = powers.rows(jnp.stack(nearest, axis=1), t)  # [d, t, s, c, n]
    columns = powers.columns(system.b, t)  # [d, t, n]
    later = einsum("dtscn,dn->dsct", rows, system.b)
    left = jnp.zeros((*later.shape[:1], *later.shape[2:]), later.dtype)
    right = left[..., 1:]
    read, write = [], []
    for s, direction in enumerate(directions):
        if direction == 1:
            at_once = einsum("dcn,dn->dc", c[:, s], system.b)
            left = left + jnp.concatenate([at_once[..., None], later[:, s, :, :-1]], axis=-1)
        else:
            right = right + later[:, s, :, :-1]
        read.append(rows[:, ::direction, s])
        write.append(columns[:, ::-direction])
    return BlockOperators(
        matrices=keep(within_block(left, right)),
        write=keep(jnp.stack(write, axis=1)),
        read=keep(_outputs_last(jnp.stack(read, axis=1))),
        transition=keep(_transition(powers, t)),
    )


def _transition(powers: Powers, t: int) -> Dense | Diagonal:
    """A^t; where t is a power of two, of the squares that there are already."""
    if goes_in_steps() or t & (t - 1):
        return powers.a.power(t).dense()
    return powers[t.bit_length() - 1]


def _outputs_last(read: jax.Array) -> jax.Array:
    """[d, s, t, c, n] to [d, s, n, c t]."""
    read = jnp.transpose(read, (0, 1, 4, 3, 2))
    return read.reshape(*read.shape[:3], -1)


def within_block(left: jax.Array, right: jax.Array) -> jax.Array:
    """Kernels to both sides, [d, c, t] and [d, c, t - 1], as matrices [d, t, c t].

    What token i sees of token j is left_{i-j} where i >= j, and right_{j-i-1} where not.
    """
    t = left.shape[-1]
    # [d, c, j, i] from diagonals by i - j.
    matrices = toeplitz(jnp.concatenate([right[..., ::-1], left], axis=-1), t)
    return jnp.moveaxis(matrices, 1, 2).reshape(left.shape[0], t, -1)


def delayed_readout(system: DiscreteStateSpace, c: jax.Array, delay: int) -> jax.Array:
    """C A^delay for readouts c [..., d, n]: the kernel from tap `delay` on is that of this C."""
    return system.a.power(delay).apply_left(c)


def kernel(system: DiscreteStateSpace, c: jax.Array, length: int) -> jax.Array:
    """The convolution kernel K_j = C A^j B, j < length: [..., d, length].

    In two levels, K_{kt+j} = (C A^j) (A^{kt} B): with t around the root of the length both
    factors are short, and one matmul for each feature makes the kernel of them.
    """
    rounds = ((length - 1).bit_length() + 1) // 2
    t = 1 << rounds
    powers = Powers(system.a)
    rows = powers.rows(jnp.moveaxis(c, -2, 0), t)
    columns = Powers(_transition(powers, t)).columns(system.b, -(-length // t))
    taps = einsum("dt...n,dkn->...dkt", rows, columns)
    return taps.reshape(*taps.shape[:-2], -1)[..., :length]
