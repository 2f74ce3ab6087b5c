"""Blocks of tokens: Toeplitz matmuls within them, the state carried from one to the next.

Both directions go through a block in the same matmuls: one matrix has what a token sees to its left
below the diagonal, and what it sees to its right above.

Shape letters: s directions, b batch, l length, c channels, d features, n state size, t block
length, m blocks.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spade_jax.ops.branches import Form, either
from spade_jax.ops.products import product, without_lone_row
from spade_jax.ops.ssm.carry import entering_blocks
from spade_jax.ops.ssm.discrete import DiscreteStateSpace
from spade_jax.ops.ssm.kernel import BlockOperators, block_operators, one_block
from spade_jax.ops.ssm.sequence import SequenceShards
from spade_jax.ops.ssm.transition import like
from spade_jax.places import place


@place("state space operators")
def operators(
    system: DiscreteStateSpace,
    c: jax.Array,
    length: int,
    directions: tuple[int, ...],
    *,
    skip: jax.Array | None = None,
    num_shards: int = 1,
    chunk_length: int,
    carries: bool = False,
) -> BlockOperators:
    """What `run` needs of a system and its readouts c [s, c, d, n], of no input.

    Args:
      length: of the sequences, or of each shard.
      skip: D [d]; None is nothing.
      carries: a state enters and leaves, however short the sequence.
    """
    if length <= chunk_length and num_shards == 1 and not carries:
        found = one_block(system, c, length, directions)
    else:
        t = min(chunk_length, 1 << (length - 1).bit_length())
        found = block_operators(system, c, t, -(-length // t), directions)
    return found._replace(skip=skip)


def run(
    operators: BlockOperators,
    u: jax.Array,
    runs: jax.Array | None,
    shards: SequenceShards,
    dtype: Any = None,
) -> jax.Array:
    """u [b, l, d] -> y [b, l, c, d], the sum of all directions, in `dtype` or that of the
    operators.

    A direction of 1 goes from left to right: token i sees j <= i. One of -1 goes from right to
    left: it sees j > i. All in the dtype of the operators, except that a bfloat16 u has the matmuls
    over tokens round their operands to bfloat16.
    """
    if operators.transitions:
        y, _ = run_from(None, operators, u, runs, shards)
    else:
        y = _run_one_block(operators.matrices, u, runs, shards)
    return plus_skip(y, operators.skip, u).astype(dtype or y.dtype)


def plus_skip(y: jax.Array, skip: jax.Array | None, u: jax.Array) -> jax.Array:
    """y [b, l, c, d] + D u, for D [d], or none, and u [b, l, d]."""
    if skip is None:
        return y
    u = without_lone_row(u.astype(y.dtype))
    return y + (like(skip, u) * u).reshape(y[:, :, :1].shape)


def _run_one_block(
    matrices: jax.Array, u: jax.Array, runs: jax.Array | None, shards: SequenceShards
) -> jax.Array:
    x = features_first(u, u.shape[1])

    def whole(arrays: tuple[jax.Array, ...], borders: Borders | None) -> jax.Array:
        return product("dbmt,dtk->dbmk", *arrays)

    def cut(arrays: tuple[jax.Array, ...], borders: Borders) -> jax.Array:
        x, matrices = arrays
        return _within_runs(x, matrices, borders.runs)

    borders = None if runs is None else borders_of(runs[:, None], None, shards)
    y = _whole_or_cut(whole, cut, (x, matrices), borders)
    return tokens_first(y, u.shape[1], u.shape[1])


class Start(NamedTuple):
    """What a sequence goes on from: a state [s, b, d, n] and the run that it belongs to, [s, b]."""

    state: jax.Array
    runs: jax.Array


def run_from(
    start: Start | None,
    operators: BlockOperators,
    u: jax.Array,
    runs: jax.Array | None,
    shards: SequenceShards,
) -> tuple[jax.Array, jax.Array]:
    """As `run`, behind `start` (which needs `runs` and one shard; None is a state of
    zeros) and without D, and the state [s, b, d, n] after the last block, that of whole blocks
    only."""
    matrices, write, read, transitions, _ = operators
    assert write is not None
    assert read is not None
    length, t = u.shape[1], matrices.shape[1]
    x, runs = in_blocks(u, runs, t, -(-length // t))
    borders = passes = None
    if runs is not None:
        borders = borders_of(runs, start, shards)
        passes = borders.keep.astype(write.dtype)[None]
        passes = _in_own_order(passes, shards.directions)[0]

    written = _in_own_order(_write(x, write, borders), shards.directions)
    first = None if start is None else jnp.moveaxis(start.state, 2, 0)
    entering, left = entering_blocks(transitions, first, written, passes, shards)
    entering = _in_own_order(entering, shards.directions)
    y = _outputs(x, entering, matrices, read, borders)
    return tokens_first(y, t, length), jnp.moveaxis(left, 0, 2)


def in_blocks(
    u: jax.Array, runs: jax.Array | None, t: int, blocks: int
) -> tuple[jax.Array, jax.Array | None]:
    """u [b, l, d] as [d, b, m, t] and its runs, if there are any, as [b, m, t]: so many blocks, of
    which the last ones are filled up."""
    padding = (0, 0), (0, blocks * t - u.shape[1])
    x = features_first(jnp.pad(u, (*padding, (0, 0))), t)
    return x, None if runs is None else jnp.pad(runs, padding, mode="edge").reshape(-1, blocks, t)


def features_first(u: jax.Array, t: int) -> jax.Array:
    """[b, l, d] to [d, b, m, t].

    Every product is then a batch of plain matmuls, one for each feature.
    """
    return jnp.transpose(u.reshape(u.shape[0], -1, t, u.shape[2]), (3, 0, 1, 2))


def tokens_first(y: jax.Array, t: int, length: int) -> jax.Array:
    """[d, b, m, c t] to [b, l, c, d], without what was padded."""
    y = y.reshape(*y.shape[:3], -1, t)
    y = jnp.transpose(y, (1, 2, 4, 3, 0))
    return y.reshape(y.shape[0], -1, *y.shape[3:])[:, :length]


def _in_own_order(x: jax.Array, directions: tuple[int, ...]) -> jax.Array:
    """x [d, s, b, m, …] with the blocks as each direction comes through them, and back."""
    if -1 not in directions:
        return x
    parts = [
        x[:, s] if direction == 1 else jnp.flip(x[:, s], 2)
        for s, direction in enumerate(directions)
    ]
    return jnp.stack(parts, axis=1)


class Borders(NamedTuple):
    """Where runs end, block by block.

    Attributes:
      runs: of the tokens, [b, m, t].
      within: whether any border lies within a block. If not, as with padding alone, one matmul
        does.
      entered: the run that each direction comes from, [s, b, m].
      leaving: the run with which it leaves the block.
      keep: 0 where the two differ, and a state ends.
    """

    runs: jax.Array
    within: jax.Array
    entered: jax.Array
    leaving: jax.Array
    keep: jax.Array

    @property
    def leaves(self) -> jax.Array:
        """Whether a token is of the run with which each direction leaves, [s, b, m, t]."""
        return self.runs[None] == self.leaving[..., None]

    @property
    def enters(self) -> jax.Array:
        """Whether a token is of the run that each direction comes from, [s, b, m, t]."""
        return self.runs[None] == self.entered[..., None]


def borders_of(runs: jax.Array, start: Start | None, shards: SequenceShards) -> Borders:
    """Of runs [b, m, t]."""
    leaving = jnp.stack([runs[..., -1 if way == 1 else 0] for way in shards.directions])
    ends = [row[:, -1:] if way == 1 else row[:, :1] for way, row in zip(shards.directions, leaving)]
    if start is not None:
        before = start.runs[..., None]
    elif shards.number == 1:
        # A state of zeros, of whichever run.
        before = jnp.stack(
            [
                row[:, :1] if way == 1 else row[:, -1:]
                for way, row in zip(shards.directions, leaving)
            ]
        )
    else:
        before = shards.from_earlier(jnp.stack(ends), 1)
    entered = jnp.stack(
        [
            jnp.concatenate([edge, row[:, :-1]] if way == 1 else [row[:, 1:], edge], axis=-1)
            for way, row, edge in zip(shards.directions, leaving, before)
        ]
    )
    within = jnp.any(runs[..., 0] != runs[..., -1])
    return Borders(runs, within, entered, leaving, leaving == entered)


def _write(x: jax.Array, write: jax.Array, borders: Borders | None) -> jax.Array:
    """The states that blocks x [d, b, m, t] leave, of zeros before them: [d, s, b, m, n]."""

    def whole(arrays: tuple[jax.Array, ...], borders: Borders | None) -> jax.Array:
        x, write = arrays
        return product("dbmt,dstn->dsbmn", x, write)

    def cut(arrays: tuple[jax.Array, ...], borders: Borders) -> jax.Array:
        x, write = arrays
        return product("dsbmt,dstn->dsbmn", _masked(x[:, None], borders.leaves), write)

    return _whole_or_cut(whole, cut, (x, write), borders)


def _outputs(
    x: jax.Array,
    entering: jax.Array,
    matrices: jax.Array,
    read: jax.Array,
    borders: Borders | None,
) -> jax.Array:
    """Of blocks x [d, b, m, t] which states [d, s, b, m, n] enter: [d, b, m, c t]."""

    def whole(arrays: tuple[jax.Array, ...], borders: Borders | None) -> jax.Array:
        x, entering, matrices, read = arrays
        if borders is not None:
            entering = _masked(entering, borders.keep[..., None])
        y = product("dbmt,dtk->dbmk", x, matrices)
        return y + product("dsbmn,dskn->dbmk", entering, read, beside=x)

    def cut(arrays: tuple[jax.Array, ...], borders: Borders) -> jax.Array:
        x, entering, matrices, read = arrays
        y = product("dsbmn,dskn->dsbmk", entering, read, beside=x)
        y = _masked(y, _each_channel(borders.enters, y)).sum(axis=1)
        return y + _within_runs(x, matrices, borders.runs)

    return _whole_or_cut(whole, cut, (x, entering, matrices, read), borders)


def _whole_or_cut(
    whole: Form, cut: Form, arrays: tuple[jax.Array, ...], borders: Borders | None
) -> jax.Array:
    """`cut` of the arrays where a border lies within a block, else `whole`."""
    if borders is None:
        return whole(arrays, None)
    return either(borders.within, cut, whole, arrays, borders)


def _within_runs(x: jax.Array, matrices: jax.Array, runs: jax.Array) -> jax.Array:
    """x [d, b, m, t] times matrices [d, t, c t], for pairs of tokens of one run [b, m, t] alone.

    A mask for each row would make a matrix for each row and feature. But runs are contiguous. Halve
    the block, and the halves, and so on: if two tokens that a cut parts are of one run, it is that
    of the last token before the cut. So the mask of all pairs that cuts of one round part is a
    column times a row, applied to the input and to the output of an ordinary matmul.
    """
    t = x.shape[-1]
    position = np.arange(t)
    # The round that parts two places, counted from the smallest pieces; 0 on the diagonal.
    parted = np.frompyfunc(lambda i, j: int(i ^ j).bit_length(), 2, 1)(position[:, None], position)
    parted = np.tile(parted.astype(int), matrices.shape[-1] // t)

    def of_round(k: int) -> jax.Array:
        return matrices * (parted == k).astype(matrices.dtype)[None]

    diagonal = of_round(0).sum(axis=1)
    y = diagonal[:, None, None] * jnp.tile(x, matrices.shape[-1] // t)
    for k, last_before in enumerate(before_cuts(t), start=1):
        of_its_run = runs == runs[..., last_before]
        new = product("dbmt,dtk->dbmk", _masked(x, of_its_run), of_round(k))
        y = y + _masked(new, _each_channel(of_its_run, y))
    return y


def before_cuts(t: int) -> list[np.ndarray]:
    """Of each round of `_within_runs`, for each place of a block the last one before its cut."""
    position = np.arange(t)
    return [
        np.minimum(position >> k << k | (1 << k - 1) - 1, t - 1)
        for k in range(1, (t - 1).bit_length() + 1)
    ]


def _masked(x: jax.Array, mask: jax.Array) -> jax.Array:
    """x [d, ...] where the mask [...] is, else 0."""
    return x * mask.astype(x.dtype)[None]


def _each_channel(mask: jax.Array, y: jax.Array) -> jax.Array:
    """A mask [..., t] for y [..., c t]."""
    return jnp.tile(mask, y.shape[-1] // mask.shape[-1])
