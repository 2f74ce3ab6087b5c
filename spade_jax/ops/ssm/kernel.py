"""What a discrete state space does to a block of tokens, as matrices; and its kernel.

Over a block of t tokens with state x before it,

    y_i = sum_{j <= i} K_{i-j} u_j + (C A^{i+1}) x        taps and read
    x'  = A^t x + sum_j (A^{t-1-j} B) u_j                  transition and write

The powers of A meet B and C alone, one step after the other: O(n) a step for S4 and S4D, and as
stable as the recurrence itself, since A contracts.
"""

from typing import NamedTuple

import jax

from spade_jax.ops.ssm.discrete import DiscreteStateSpace
from spade_jax.ops.ssm.transition import Dense, Diagonal, einsum, iterate
from spade_jax.places import place


class BlockOperators(NamedTuple):
    """A block of t tokens of d features, for readouts C of any leading shape `...`."""

    taps: jax.Array  # [t, ..., d]: K_j = C A^j B
    read: jax.Array  # [t, ..., d, n]: C A^{i+1}
    write: jax.Array  # [t, d, n]: A^{t-1-j} B
    transition: Diagonal | Dense  # A^t


@place("state space operators")
def block_operators(system: DiscreteStateSpace, c: jax.Array, t: int) -> BlockOperators:
    """The operators of a block of t tokens; c [..., d, n] are readouts."""
    a = system.a
    rows, columns = iterate(
        lambda pair: (a.apply_left(pair[0]), a.apply(pair[1])), (c, system.b), t + 1
    )
    taps = einsum("t...dn,dn->t...d", rows[:t], system.b)
    return BlockOperators(taps, rows[1:], columns[:t][::-1], a.power(t))


@place("state space operators")
def delayed_readout(system: DiscreteStateSpace, c: jax.Array, delay: int) -> jax.Array:
    """C A^delay for readouts c [..., d, n]: the kernel from tap `delay` on is that of this C."""
    return system.a.power(delay).apply_left(c)


@place("state space operators")
def kernel(system: DiscreteStateSpace, c: jax.Array, length: int) -> jax.Array:
    """The convolution kernel K_j = C A^j B, j < length: [..., d, length].

    In two levels, K_{kt+j} = (C A^j) (A^{kt} B): with t around the root of the length both
    factors are short, and one matmul for each feature makes the kernel of them.
    """
    t = 1
    while t * t < length:
        t *= 2
    rows = iterate(system.a.apply_left, c, t)
    columns = iterate(system.a.power(t).apply, system.b, -(-length // t))
    taps = einsum("t...dn,kdn->...dkt", rows, columns)
    return taps.reshape(*taps.shape[:-2], -1)[..., :length]
