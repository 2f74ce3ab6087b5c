"""Three ways to run a state space over a sequence, and their common frame.

    y_t = sum_{s <= t} K0_{t-s} u_s  [ + sum_{s > t} K1_{s-t-1} u_s ],    K_j = C A^j B

"reference" is the recurrence itself; "chunked" multiplies blocks of tokens by matrices and
carries the state from block to block; "fft" multiplies by the kernel's transform. All three take
padding and segments, and all three give the same numbers: docs/mathematics.md says why.

Inside, a *stream* is an input with a readout of its own that goes through the same (A, B): the
reversed sequence is one, and so is the delayed one that cuts a kernel off.

On a mesh each device runs its own rows, features and, "chunked", piece of the sequence, where
pieces are whole chunks. They run from a state of zeros; then states are handed on from piece to
piece, and nothing else.
Shape letters: s streams, b batch, l length, c channels, d features, n state size, t block length,
m blocks.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from spade_jax import partition
from spade_jax.config import require_choice
from spade_jax.ops.ssm.discrete import DiscreteStateSpace
from spade_jax.ops.ssm.kernel import block_operators, delayed_readout, kernel
from spade_jax.ops.ssm.transition import Dense, Diagonal, einsum, like
from spade_jax.ops.toeplitz import toeplitz

METHODS = ("chunked", "fft", "reference")


def convolve(
    system: DiscreteStateSpace,
    c: jax.Array,
    u: jax.Array,
    *,
    method: str = "chunked",
    chunk_length: int = 64,
    segment_ids: jax.Array | None = None,
    bidirectional: bool = False,
    max_kernel_length: int | None = None,
) -> jax.Array:
    """Runs the state space over a sequence.

    Args:
      system: the discrete state space of d features.
      c: readouts (see `discrete.readout`), [channels, d, n]; where bidirectional, the forward and
        then the backward ones, [2 * channels, d, n].
      u: input, [b, l, d], in the dtype of the system.
      method: "chunked", "fft" or "reference".
      chunk_length: t of "chunked", a power of two.
      segment_ids: [b, l], int. 0 is padding, whose input counts as zero; where the number changes
        from one token to the next (padding aside) the state is reset. None: one segment.
      bidirectional: tokens see those behind them too, from distance 1 on.
      max_kernel_length: taps after which the kernel is zero; None for all of them.

    Returns:
      y [b, l, channels, d], of no meaning where there is padding.

    Raises:
      ConfigError: another method.
    """
    require_choice("model.ssm.convolution", method, METHODS)
    # Left to itself, XLA gathers what goes into an FFT, and states on every device.
    axes = partition.fitting(("batch", "length", "ssm_features"), u.shape, chunk_length)
    if method != "chunked":
        axes = (axes[0], None, axes[2])

    def run(
        system: DiscreteStateSpace, c: jax.Array, u: jax.Array, segment_ids: jax.Array | None
    ) -> jax.Array:
        return _convolve(
            system,
            c,
            u,
            segment_ids,
            method=method,
            chunk_length=chunk_length,
            bidirectional=bidirectional,
            max_kernel_length=max_kernel_length,
            shards=1 if axes[1] is None else partition.sequence_shards(),
        )

    run = partition.on_each_device(
        run, ((axes[2],), (None, axes[2], None), axes, axes[:2]), (*axes[:2], None, axes[2])
    )
    return run(system, c, u, segment_ids)


def _convolve(
    system: DiscreteStateSpace,
    c: jax.Array,
    u: jax.Array,
    segment_ids: jax.Array | None,
    *,
    method: str,
    chunk_length: int,
    bidirectional: bool,
    max_kernel_length: int | None,
    shards: int,
) -> jax.Array:
    """`convolve`, of one of several shards of the sequence."""
    line = _Line(shards, (1, -1) if bidirectional else (1,))
    runs = None
    if segment_ids is not None:
        u = u * (segment_ids != 0).astype(u.dtype)[..., None]
        runs = _runs(segment_ids, shards)[None]
    streams, readouts = u[None], c[None]
    if bidirectional:
        runs = None if runs is None else jnp.concatenate([runs, runs[:, :, ::-1]])
        backward = _delay(
            u[None, :, ::-1], 1, None if runs is None else runs[1:], _Line(shards, (-1,))
        )
        streams = jnp.concatenate([streams, backward])
        readouts = c.reshape(2, -1, *c.shape[1:])

    length = u.shape[1] * shards
    cut = max_kernel_length is not None and max_kernel_length < length
    if method == "fft":
        taps = kernel(system, readouts, min(length, max_kernel_length or length))
        y = (fft_convolve if runs is None else _fft_runs)(
            *((taps, streams) if runs is None else (taps, streams, runs))
        )
    else:
        if cut:
            assert max_kernel_length is not None
            # What lies beyond the last tap is what the same state space, read as C A^max, makes
            # of the input of that many tokens ago.
            beyond = -delayed_readout(system, readouts, max_kernel_length)
            streams = jnp.concatenate([streams, _delay(streams, max_kernel_length, runs, line)])
            readouts = jnp.concatenate([readouts, beyond])
            runs = None if runs is None else jnp.concatenate([runs, runs])
            line = _Line(shards, line.directions * 2)
        if method == "reference":
            y = _reference(system, readouts, streams, runs)
        else:
            y = _chunked(system, readouts, streams, runs, line, chunk_length=chunk_length)
        if cut:
            y = y.reshape(2, -1, *y.shape[1:]).sum(axis=0)
    return y[0] + y[1, :, ::-1] if bidirectional else y[0]


class _Line(NamedTuple):
    """The shards of a sequence, one after the other, as streams go through them.

    Attributes:
      shards: how many there are.
      directions: of each stream, 1 from left to right or -1.
    """

    shards: int
    directions: tuple[int, ...]

    def earlier(self, x: jax.Array, distance: int) -> jax.Array:
        """x [s, ...] of the shard so many places earlier in each stream; zeros where none is."""
        if distance == 0:
            return x
        if distance >= self.shards:
            return jnp.zeros_like(x)
        return jnp.stack(
            [
                partition.from_shard_before(x[stream], direction * distance)
                for stream, direction in enumerate(self.directions)
            ]
        )

    def entering(self, left: jax.Array, keep: jax.Array, transition: Dense | Diagonal) -> jax.Array:
        """The states [d, s, b, n] that enter a shard: by what the shards before, begun with zeros,
        end with.

        A scan in log2(shards) rounds: after each, `left` is what twice as many shards leave.

        Args:
          left: [d, s, b, n], the states that this shard ends with.
          keep: [s, b], 0 where a run ends within the shard, or on its way in.
          transition: A to the power of the shard's length.
        """
        if self.shards == 1:
            return jnp.zeros_like(left)
        left_s = jnp.moveaxis(left, 1, 0)
        distance = 1
        while distance < self.shards:
            earlier = jnp.moveaxis(self.earlier(left_s, distance), 0, 1)
            carried = _kept(_by_feature(transition.apply, earlier), keep)
            left_s = left_s + jnp.moveaxis(carried, 1, 0)
            keep = keep * self.earlier(keep, distance)
            transition = transition.power(2)
            distance *= 2
        return jnp.moveaxis(self.earlier(left_s, 1), 0, 1)


def _runs(segment_ids: jax.Array, shards: int) -> jax.Array:
    """Numbers the segments of each row from left to right, [b, l]; padding counts to the left."""
    tokens = segment_ids != 0
    positions = jnp.arange(segment_ids.shape[1], dtype=jnp.int32)
    last_token = jax.lax.cummax(jnp.where(tokens, positions, 0), axis=1)
    filled = jnp.take_along_axis(segment_ids, last_token, axis=1)
    before = filled[:, :1]
    if shards > 1:
        # The segment of the last token in any shard before, which padding here counts to.
        last = jax.lax.all_gather(filled[:, -1] * tokens.any(axis=1), "sequence")
        places = jnp.arange(shards)[:, None]
        earlier = places < jax.lax.axis_index("sequence")
        where = jnp.max(jnp.where(earlier & (last != 0), places, -1), axis=0)
        before = jnp.where(where < 0, 0, jnp.take_along_axis(last, where[None], axis=0)[0])[:, None]
        begun = jnp.cumsum(tokens, axis=1) > 0
        filled = jnp.where(begun, filled, before)
    border = jnp.concatenate([before, filled[:, :-1]], axis=1) != filled
    runs = jnp.cumsum(border, axis=1, dtype=jnp.int32)
    if shards > 1:
        ended = jax.lax.all_gather(runs[:, -1], "sequence")
        runs = runs + jnp.sum(jnp.where(earlier, ended, 0), axis=0)[:, None]
    return runs


def _delay(u: jax.Array, tokens: int, runs: jax.Array | None, line: _Line) -> jax.Array:
    """u [s, b, l, d], so many tokens later within its run [s, b, l]; zero where there was none."""

    def earlier(x: jax.Array) -> jax.Array:
        shards, rest = divmod(tokens, x.shape[2])
        far, near = line.earlier(x, shards + 1), line.earlier(x, shards)
        return jnp.concatenate(
            [far[:, :, x.shape[2] - rest :], near[:, :, : -rest or None]], axis=2
        )

    if runs is None:
        return earlier(u)
    same = earlier(runs + 1) == runs + 1  # 0 is none.
    return earlier(u) * same.astype(u.dtype)[..., None]


def _reference(
    system: DiscreteStateSpace, c: jax.Array, u: jax.Array, runs: jax.Array | None
) -> jax.Array:
    """The recurrence, token by token: u [s, b, l, d], c [s, c, d, n] -> y [s, b, l, c, d]."""
    streams, batch, length, d = u.shape
    if runs is None:
        runs = jnp.zeros((streams, batch, length), jnp.int32)
    keep = jnp.pad(runs[:, :, 1:] == runs[:, :, :-1], ((0, 0), (0, 0), (1, 0)))

    def token(state: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        u_t, keep_t = inputs
        state = system.a.apply(state * keep_t[..., None, None])
        state = state + like(system.b, state) * u_t[..., None]
        return state, einsum("scdn,sbdn->sbcd", c, state)

    initial = jnp.zeros((streams, batch, d, c.shape[-1]), u.dtype)
    inputs = (jnp.moveaxis(u, 2, 0), jnp.moveaxis(keep.astype(u.dtype), 2, 0))
    return jnp.moveaxis(jax.lax.scan(token, initial, inputs)[1], 0, 2)


def _chunked(
    system: DiscreteStateSpace,
    c: jax.Array,
    u: jax.Array,
    runs: jax.Array | None,
    line: _Line,
    *,
    chunk_length: int,
) -> jax.Array:
    """Blocks of t tokens: a Toeplitz matmul within, the state carried between. As `_reference`."""
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
    matrices = toeplitz(jnp.pad(taps, (*[(0, 0)] * 3, (t - 1, 0))), t)
    write = jnp.swapaxes(blocks.write, 0, 1)
    read = jnp.transpose(blocks.read, (3, 1, 2, 4, 0))

    if runs is None:
        written = einsum("dsbmt,dtn->dsbmn", x, write)
        entering = _entering_blocks(blocks.transition, written, None, line)
        y = _within_blocks(matrices, x) + einsum("dsbmn,dscni->dsbmci", entering, read)
    else:
        runs = jnp.pad(runs, ((0, 0), (0, 0), (0, padding)), mode="edge")
        runs = runs.reshape(streams, batch, -1, t)
        leaving = runs[..., -1]
        before = leaving[..., :1] if line.shards == 1 else line.earlier(leaving[..., -1:], 1)
        entered = jnp.concatenate([before, leaving[..., :-1]], axis=-1)
        leaves = (runs == leaving[..., None]).astype(x.dtype)
        enters = (runs == entered[..., None]).astype(x.dtype)
        keep = (leaving == entered).astype(x.dtype)
        written = einsum("dsbmt,dtn->dsbmn", x * leaves[None], write)
        entering = _entering_blocks(blocks.transition, written, keep, line)
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
    return y.reshape(streams, batch, -1, *y.shape[4:])[:, :, :length]


def _entering_blocks(
    transition: Dense | Diagonal, written: jax.Array, keep: jax.Array | None, line: _Line
) -> jax.Array:
    """The states on entering each block, [d, s, b, m, n], from what each block writes.

    keep [s, b, m] is 0 where a block ends in another run than the block before it.
    """
    start = jnp.zeros_like(written[..., 0, :])
    entering, left = _carry(transition, start, written, keep)
    if line.shards == 1:
        return entering
    kept = jnp.ones(written.shape[1:3], written.dtype) if keep is None else keep.prod(axis=-1)
    start = line.entering(left, kept, transition.power(written.shape[3]))
    return _carry(transition, start, written, keep)[0]


@jax.custom_vjp
def _carry(
    transition: Dense | Diagonal, start: jax.Array, written: jax.Array, keep: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """The states on entering each block, [d, s, b, m, n], and the one that the last block leaves.

    start [d, s, b, n] enters the first block; written and keep as of `_entering_blocks`.
    """

    def block(state, inputs):
        new, keep_m = inputs
        return _by_feature(transition.apply, _kept(state, keep_m)) + new, state

    return _scan_blocks(block, start, written, keep)


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


def _by_feature(apply: Callable[[jax.Array], jax.Array], states: jax.Array) -> jax.Array:
    """A transition's `apply`, which takes states [..., d, n], to states [d, ..., n]."""
    for _ in range(states.ndim - 2):
        apply = jax.vmap(apply, in_axes=1, out_axes=1)
    return apply(states)


def _kept(states: jax.Array, keep: jax.Array | None) -> jax.Array:
    """States [d, ..., n], zero where keep [...] is."""
    return states if keep is None else states * keep[None, ..., None]


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
        return _kept(_by_feature(transposed.apply, later), keep_m) + cotangent_m, later

    # `later` is the cotangent of the state that the next block enters with, which this one wrote.
    later, start = _scan_blocks(block, end, cotangent, keep, reverse=True)
    _, pullback = jax.vjp(lambda a: _by_feature(a.apply, _kept(entering, keep)), transition)
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


def fft_convolve(taps: jax.Array, u: jax.Array) -> jax.Array:
    """A causal convolution by FFT: u [s, b, l, d], taps [s, c, d, k] -> [s, b, l, c, d]."""
    size = u.shape[2] + taps.shape[-1]  # linear, not circular
    u_f = jnp.fft.rfft(jnp.moveaxis(u, 2, 3), size)
    y = jnp.fft.irfft(u_f[:, :, None] * jnp.fft.rfft(taps, size)[:, None], size)
    return jnp.transpose(y[..., : u.shape[2]], (0, 1, 4, 2, 3))


@jax.custom_vjp
def _fft_runs(taps: jax.Array, u: jax.Array, runs: jax.Array) -> jax.Array:
    """A transform for each run: a kernel's transform cannot be reset. For parity, not for speed."""
    return _fft_runs_forward(taps, u, runs)[0]


def _fft_runs_forward(taps, u, runs):
    def add_run(i, y):
        mask = (runs == i).astype(u.dtype)[..., None]
        return y + fft_convolve(taps, u * mask) * mask[..., None]

    shape = (*u.shape[:3], taps.shape[1], u.shape[3])
    y = jax.lax.fori_loop(0, runs.max() + 1, add_run, jnp.zeros(shape, u.dtype))
    return y, (taps, u, runs)


def _fft_runs_backward(residuals, cotangent):
    taps, u, runs = residuals

    def add_run(i, gradients):
        mask = (runs == i).astype(u.dtype)[..., None]
        _, pullback = jax.vjp(fft_convolve, taps, u * mask)
        d_taps, d_u = pullback(cotangent * mask[..., None])
        return gradients[0] + d_taps, gradients[1] + d_u * mask

    zeros = (jnp.zeros_like(taps), jnp.zeros_like(u))
    return *jax.lax.fori_loop(0, runs.max() + 1, add_run, zeros), None


_fft_runs.defvjp(_fft_runs_forward, _fft_runs_backward)
