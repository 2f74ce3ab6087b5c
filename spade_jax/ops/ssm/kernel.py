"""The kernel of a discrete state space, and what it does to a block of tokens, as matrices.

Over a block of t tokens, with the state x that enters it,

    y_i = sum_{j <= i} K_{i-j} u_j + (C A^{i+1}) x        matrices and read
    x'  = A^t x + sum_j (A^{t-1-j} B) u_j                  transition and write

and from right to left, where a token sees those behind it alone,

    y_i = sum_{j > i} K_{j-i-1} u_j + (C A^{t-1-i}) x
    x'  = A^t x + sum_j (A^j B) u_j

The powers meet B and C by doubling: A^{2^k} times all that there are gives as many again, log2(t)
matmuls in all. That is as stable as the recurrence, since A contracts, and as exact, since A^{2^k}
is kept as what it differs from I by (`transition.Dense`). The first powers of S4's A are a diagonal
minus a few columns and rows (`transition.DiagonalMinusLowRank`).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from spade_jax.ops.ssm.discrete import DiscreteStateSpace
from spade_jax.ops.ssm.transition import Closed, Transition, by_feature, einsum
from spade_jax.ops.toeplitz import toeplitz
from spade_jax.places import place

# What rematerialisation may keep: operators, states and outputs of state spaces.
STATE_SPACE = "state space"


def keep(tree: Any) -> Any:
    """A tree of arrays by the name of what rematerialisation may keep."""
    return jax.tree.map(_named, tree)


def _named(x: jax.Array) -> jax.Array:
    if jnp.iscomplexobj(x):  # Which rematerialisation cannot keep.
        return jax.lax.complex(_named(x.real), _named(x.imag))
    return checkpoint_name(x, STATE_SPACE)


Apply = Callable[[Any, jax.Array], jax.Array]


class Powers:
    """A, A^2, A^4, …, each made once, when it is asked for."""

    def __init__(self, a: Transition):
        self.a = a
        self._squares: list[Transition] = []

    def __getitem__(self, k: int) -> Transition:
        """A^(2^k)."""
        return self.up_to(k)[k]

    def up_to(self, k: int) -> tuple[Transition, ...]:
        """A^(2^0) … A^(2^k)."""
        if not self._squares:
            self._squares.append(keep(self.a))
        while len(self._squares) <= k:
            self._squares.append(keep(self._squares[-1].power(2)))
        return tuple(self._squares[: k + 1])

    def rows(self, c: jax.Array, count: int) -> jax.Array:
        """c A^j, j < count, for c [d, ..., n]: [d, ..., count, n]."""
        return self._successive(c, count, _apply_left)

    def columns(self, b: jax.Array, count: int) -> jax.Array:
        """A^j b, j < count, for b [d, ..., n]: [d, ..., count, n]."""
        return self._successive(b, count, _apply)

    def _successive(self, x: jax.Array, count: int, apply: Apply) -> jax.Array:
        if count == 1:
            return x[..., None, :]
        return _doubled(apply, count, self.up_to((count - 1).bit_length() - 1), x)


def _apply(a: Transition, x: jax.Array) -> jax.Array:
    return by_feature(a.apply, x)


def _apply_left(a: Transition, c: jax.Array) -> jax.Array:
    return by_feature(a.apply_left, c)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _doubled(apply: Apply, count: int, squares: tuple[Transition, ...], x: jax.Array) -> jax.Array:
    """x [d, ..., n] and what A, A^2, … make of it, [d, ..., count, n]: A^{2^k} of all that there
    are gives as many again."""
    found = x[..., None, :]
    for square in squares:
        new = apply(square, found[..., : count - found.shape[-2], :])
        found = jnp.concatenate([found, new], axis=-2)
    return found


def _doubled_forward(apply, count, squares, x):
    found = keep(_doubled(apply, count, squares, x))
    return found, (squares, found)


def _doubled_backward(apply, count, residuals, cotangent):
    """Round by round. JAX's own rule would keep what was found after each."""
    squares, found = residuals
    gradients = []
    for k in reversed(range(len(squares))):
        half = 2**k
        cotangent, of_new = cotangent[..., :half, :], cotangent[..., half:, :]
        _, pullback = jax.vjp(apply, squares[k], found[..., : of_new.shape[-2], :])
        of_square, of_found = pullback(of_new)
        gradients.append(of_square)
        missing = [(0, 0)] * of_found.ndim
        missing[-2] = (0, half - of_found.shape[-2])
        cotangent = cotangent + jnp.pad(of_found, missing)
    return tuple(reversed(gradients)), cotangent[..., 0, :]


_doubled.defvjp(_doubled_forward, _doubled_backward)


class BlockOperators(NamedTuple):
    """Of blocks of t tokens of d features, for s directions and c readouts in each.

    There are c t outputs, channel by channel. Of a sequence that is one block there are matrices
    alone.
    """

    matrices: jax.Array  # [d, t, c t]: from inputs to outputs, all directions added up
    write: jax.Array | None  # [d, s, t, n]: from inputs to the state that leaves the block
    read: jax.Array | None  # [d, s, c t, n]: from the state that enters the block to outputs
    # A^t, and as far as states are carried A^2t, A^4t, …, which have no gradients of their own.
    transitions: tuple[Closed, ...]
    skip: jax.Array | None = None  # D [d]: what an input itself weighs in its outputs


def block_operators(
    system: DiscreteStateSpace, c: jax.Array, t: int, blocks: int, directions: Sequence[int]
) -> BlockOperators:
    """The operators of so many blocks of t tokens.

    Args:
      c: readouts [s, c, d, n] of each direction.
      directions: 1 where what a token sees is to its left, itself included; -1 where it is to its
        right.
    """
    powers = Powers(system.a)
    columns = powers.columns(system.b, t)  # [d, t, n]
    # The nearest token reads the entering state one step later from the left, at once from the
    # right.
    nearest = [
        system.a.apply_left(of_direction) if direction == 1 else of_direction
        for of_direction, direction in zip(c, directions)
    ]
    rows = powers.rows(jnp.moveaxis(jnp.stack(nearest), 2, 0), t)  # [d, s, c, t, n]
    behind = jnp.moveaxis(einsum("dsctn,dn->dsct", rows, system.b), 0, 2)
    taps, read, write = [], [], []
    for s, direction in enumerate(directions):
        of_direction = behind[s]
        if direction == 1:
            # The first tap is C B, and the row behind it C A.
            first = einsum("cdn,dn->cd", c[s], system.b)[..., None]
            of_direction = jnp.concatenate([first, of_direction[..., :-1]], axis=-1)
        taps.append(of_direction)
        read.append(rows[:, s, :, ::direction].reshape(len(system.b), -1, rows.shape[-1]))
        write.append(columns[:, ::-direction])
    transitions = Powers(_transition(powers, t))
    rounds = blocks.bit_length()
    return BlockOperators(
        matrices=keep(_within_block(taps, directions)),
        write=jnp.stack(write, axis=1),
        read=jnp.stack(read, axis=1),
        transitions=(
            transitions[0].dense(),
            *(jax.lax.stop_gradient(transitions[k].dense()) for k in range(1, rounds)),
        ),
    )


def one_block(
    system: DiscreteStateSpace, c: jax.Array, length: int, directions: Sequence[int]
) -> BlockOperators:
    """The operators of a sequence that is one block: no state enters or leaves it."""
    taps = list(kernel(system, c, length))
    return BlockOperators(keep(_within_block(taps, directions)), None, None, ())


def _transition(powers: Powers, t: int) -> Closed:
    """A^t; where t is a power of two, of the squares that there are already."""
    return (powers.a.power(t) if t & (t - 1) else powers[t.bit_length() - 1]).dense()


def _within_block(taps: Sequence[jax.Array], directions: Sequence[int]) -> jax.Array:
    """Kernels [c, d, t] of each direction as matrices [d, t, c t].

    What token i sees of token j is tap i - j of what it sees to its left, where i >= j, and tap
    j - i - 1 of what it sees to its right, where not.
    """
    left = right = jnp.zeros_like(taps[0])
    for own, direction in zip(taps, directions):
        left, right = (left + own, right) if direction == 1 else (left, right + own)
    t = left.shape[-1]
    # [c, d, j, i] from diagonals by i - j.
    matrices = toeplitz(jnp.concatenate([right[..., -2::-1], left], axis=-1), t)
    return jnp.moveaxis(matrices, 0, 2).reshape(left.shape[1], t, -1)


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
    rounds = ((length - 1).bit_length() + 1) // 2
    t = 1 << rounds
    powers = Powers(system.a)
    *lead, d, n = c.shape
    columns = Powers(_transition(powers, t)).columns(system.b, -(-length // t))
    taps = jnp.stack(
        [einsum("dtn,djn->djt", powers.rows(x, t), columns) for x in c.reshape(-1, d, n)]
    )
    return taps.reshape(*lead, d, -1)[..., :length]
