"""Blocks of tokens: Toeplitz matmuls within them, the state carried from one to the next.

Shape letters: s streams, b batch, l length, c channels, d features, n state size, t block length,
m blocks.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from spade_jax.ops.ssm.discrete import DiscreteStateSpace
from spade_jax.ops.ssm.kernel import block_operators
from spade_jax.ops.ssm.sequence import SequenceShards, by_feature, kept
from spade_jax.ops.ssm.transition import Dense, Diagonal, einsum
from spade_jax.ops.toeplitz import toeplitz
from spade_jax.places import place


def run(
    system: DiscreteStateSpace,
    c: jax.Array,
    u: jax.Array,
    runs: jax.Array | None,
    shards: SequenceShards,
    *,
    chunk_length: int,
) -> jax.Array:
    """u [s, b, l, d], c [s, c, d, n] -> y [s, b, l, c, d]."""
    return run_from(None, system, c, u, runs, shards, chunk_length=chunk_length)[0]


class Start(NamedTuple):
    """What a sequence goes on from: a state [s, b, d, n] and the run that it belongs to, [s, b]."""

    state: jax.Array
    runs: jax.Array


def run_from(
    start: Start | None,
    system: DiscreteStateSpace,
    c: jax.Array,
    u: jax.Array,
    runs: jax.Array | None,
    shards: SequenceShards,
    *,
    chunk_length: int,
) -> tuple[jax.Array, jax.Array]:
    """As `run`, behind `start` (which needs `runs` and one shard; None is a state of
    zeros), and the state [s, b, d, n] after the last block, that of whole blocks only."""
    streams, batch, length, d = u.shape
    t = min(chunk_length, 1 << (length - 1).bit_length())
    padding = -length % t
    u = jnp.pad(u, ((0, 0), (0, 0), (0, padding), (0, 0)))
    # Features first, and matrices as what rows are multiplied by: every product below is then a
    # batch of plain matmuls, one for each feature, that needs no transposition.
    x = jnp.transpose(u.reshape(streams, batch, -1, t, d), (4, 0, 1, 2, 3))
    blocks = block_operators(system, c, t)
    taps = jnp.transpose(blocks.taps, (3, 1, 2, 0))
    # T_ji = taps_{i-j} for i >= j, else 0.
    matrices = place("state space operators")(toeplitz)(
        jnp.pad(taps, (*[(0, 0)] * 3, (t - 1, 0))), t
    )
    write = jnp.swapaxes(blocks.write, 0, 1)
    read = jnp.transpose(blocks.read, (3, 1, 2, 4, 0))
    first = None if start is None else jnp.moveaxis(start.state, 2, 0)

    if runs is None:
        written = einsum("dsbmt,dtn->dsbmn", x, write)
        entering, left = _entering_blocks(blocks.transition, first, written, None, shards)
        y = _within_blocks(matrices, x) + einsum("dsbmn,dscni->dsbmci", entering, read)
    else:
        runs = jnp.pad(runs, ((0, 0), (0, 0), (0, padding)), mode="edge")
        runs = runs.reshape(streams, batch, -1, t)
        leaving = runs[..., -1]
        if start is not None:
            before = start.runs[..., None]
        else:
            before = (
                leaving[..., :1]
                if shards.number == 1
                else shards.from_earlier(leaving[..., -1:], 1)
            )
        entered = jnp.concatenate([before, leaving[..., :-1]], axis=-1)
        leaves = (runs == leaving[..., None]).astype(x.dtype)
        enters = (runs == entered[..., None]).astype(x.dtype)
        keep = (leaving == entered).astype(x.dtype)
        written = einsum("dsbmt,dtn->dsbmn", x * leaves[None], write)
        entering, left = _entering_blocks(blocks.transition, first, written, keep, shards)
        y = einsum("dsbmn,dscni->dsbmci", entering, read) * enters[None, ..., None, :]
        # Where all borders are also those of blocks, as with padding alone, one matmul will do.
        borders_within = jnp.any(runs[..., 0] != runs[..., -1])
        y = y + jax.lax.cond(
            borders_within,
            _within_runs,
            lambda matrices, x, runs: _within_blocks(matrices, x),
            *(matrices, x, runs),
        )
    y = jnp.transpose(y, (1, 2, 3, 5, 4, 0))
    y = y.reshape(streams, batch, -1, *y.shape[4:])[:, :, :length]
    return y, jnp.moveaxis(left, 0, 2)


def _entering_blocks(
    transition: Dense | Diagonal,
    start: jax.Array | None,
    written: jax.Array,
    keep: jax.Array | None,
    shards: SequenceShards,
) -> tuple[jax.Array, jax.Array]:
    """The states on entering each block, [d, s, b, m, n], from what each block writes, and the one
    that the last block leaves, [d, s, b, n], of a start with zeros where there are shards.

    start [d, s, b, n] enters the first block, zeros where None; keep [s, b, m] is 0 where a block
    ends in another run than the block before it.
    """
    zeros = jnp.zeros_like(written[..., 0, :])
    entering, left = _carry(transition, zeros if start is None else start, written, keep)
    if shards.number == 1:
        return entering, left
    kept = jnp.ones(written.shape[1:3], written.dtype) if keep is None else keep.prod(axis=-1)
    start = shards.entering(left, kept, transition.power(written.shape[3]))
    return _carry(transition, start, written, keep)[0], left


@jax.custom_vjp
def _carry(
    transition: Dense | Diagonal, start: jax.Array, written: jax.Array, keep: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """The states on entering each block, [d, s, b, m, n], and the one that the last block leaves.

    start [d, s, b, n] enters the first block; written and keep as of `_entering_blocks`.
    """

    def block(state, inputs):
        new, keep_m = inputs
        return by_feature(transition.apply, kept(state, keep_m)) + new, state

    return _scan_blocks(block, start, written, keep)


@place("state space carry")
def _scan_blocks(
    block: Callable[..., tuple[jax.Array, jax.Array]],
    start: jax.Array,
    inputs: jax.Array,
    keep: jax.Array | None,
    reverse: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Scans over the m of inputs [d, s, b, m, n] and keep [s, b, m]: what it gives, and the end."""
    per_block = jnp.moveaxis(inputs, 3, 0), None if keep is None else jnp.moveaxis(keep, 2, 0)
    end, found = jax.lax.scan(block, start, per_block, reverse=reverse)
    return jnp.moveaxis(found, 0, 3), end


def _carry_forward(transition, start, written, keep):
    entering, left = _carry(transition, start, written, keep)
    return (entering, left), (transition, entering, keep)


def _carry_backward(residuals, cotangents):
    """The reversed recurrence, and then the transition's gradient in one product over all blocks.

    JAX's own rule for the scan would add up that gradient block by block.
    """
    transition, entering, keep = residuals
    cotangent, end = cotangents
    transposed = transition.transpose()

    def block(later, inputs):
        cotangent_m, keep_m = inputs
        return kept(by_feature(transposed.apply, later), keep_m) + cotangent_m, later

    # `later` is the cotangent of the state that the next block enters with, which this one wrote.
    later, start = _scan_blocks(block, end, cotangent, keep, reverse=True)
    _, pullback = jax.vjp(lambda a: by_feature(a.apply, kept(entering, keep)), transition)
    return *pullback(later), start, later, None if keep is None else jnp.zeros_like(keep)


_carry.defvjp(_carry_forward, _carry_backward)


def _within_blocks(matrices: jax.Array, x: jax.Array) -> jax.Array:
    """x [d, s, b, m, t] times the Toeplitz matrices [d, s, c, t, t]: [d, s, b, m, c, t]."""
    return einsum("dsbmj,dscji->dsbmci", x, matrices)


def _within_runs(matrices: jax.Array, x: jax.Array, runs: jax.Array) -> jax.Array:
    """`_within_blocks`, for pairs of tokens of the same run only: runs are [s, b, m, t].

    A mask for each row would make one Toeplitz matrix for each row and feature. But runs are
    contiguous: if a token in the left half of a block and one in the right half are of one run,
    it is the run of the token at the middle. So the mask of that quarter of the matrix is a
    column times a row, applied to the input and to the output of an ordinary matmul; the other
    two nonzero quarters are blocks of half the length.
    """
    t = x.shape[-1]
    y = matrices[..., 0, :1][:, :, None, None] * x[..., None, :]  # the diagonal
    width = t
    while width > 1:
        half = width // 2
        x_halves = x.reshape(*x.shape[:3], -1, 2, half)
        run_halves = runs.reshape(*runs.shape[:2], -1, 2, half)
        middle = run_halves[..., 0, -1:]
        left = x_halves[..., 0, :] * (run_halves[..., 0, :] == middle).astype(x.dtype)[None]
        right = einsum("dsbkj,dscji->dsbkci", left, matrices[..., :half, half:width])
        within = (run_halves[..., 1, :] == middle).astype(x.dtype)
        right = right * within[None, ..., None, :]
        # [d, s, b, k, c, half] -> [d, s, b, m, c, t]: k counts the halvings of each block.
        right = jnp.pad(right, ((0, 0),) * 5 + ((half, 0),))
        right = right.reshape(*x.shape[:4], -1, *right.shape[4:])
        y = y + jnp.moveaxis(right, 4, 5).reshape(y.shape)
        width = half
    return y
