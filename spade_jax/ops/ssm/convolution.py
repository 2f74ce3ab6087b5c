"""Three ways to run a state space over a sequence, and their common frame.

    y_t = sum_{s <= t} K0_{t-s} u_s  [ + sum_{s > t} K1_{s-t-1} u_s ] + D u_t,    K_j = C A^j B

"reference" is the recurrence itself; "chunked" multiplies blocks of tokens by matrices and
carries the state from block to block; "fft" multiplies by the kernel's transform. All three take
padding and segments, and all three give the same numbers: docs/mathematics.md says why.

Inside, for "fft" and "reference", a *stream* is an input with a readout of its own that goes
through the same (A, B): the reversed sequence is one, and so is the delayed one that cuts a kernel
off. "chunked" goes through one input in both directions.

On a mesh each device runs its own rows, features and, "chunked", piece of the sequence, where
pieces are whole chunks. They run from a state of zeros; then states are handed on from piece to
piece, and nothing else.

What a device makes of the system costs as much for one row as for many. So where fsdp cuts rows,
it exchanges them for features first: a device has all rows of few features, and makes what these
need. Two exchanges of activations, in the dtype of input and output, are much less.
Shape letters: s streams, b batch, l length, c channels, d features, n state size, t block length,
m blocks.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spade_jax import partition
from spade_jax.ops.checks import check, check_choice
from spade_jax.ops.dispatch import Operation
from spade_jax.ops.ssm import chunked, recurrence
from spade_jax.ops.ssm.discrete import DiscreteStateSpace
from spade_jax.ops.ssm.fft import fft_convolve, fft_convolve_runs
from spade_jax.ops.ssm.kernel import delayed_readout, kernel
from spade_jax.ops.ssm.pallas_tpu import operations as pallas_tpu
from spade_jax.ops.ssm.sequence import SequenceShards, delay, number_runs

# Takes the operators of blocks, the input, its runs, shards and directions, and the dtype of the
# output: see `chunked.run`.
CHUNKED = Operation("chunked state space")
CHUNKED.register("xla", chunked.run, platforms=("cpu", "gpu", "tpu"))
CHUNKED.register(
    "pallas_tpu",
    pallas_tpu.run,
    platforms=("tpu",),
    refuses=pallas_tpu.refuses,
    best_for=pallas_tpu.is_best,
)

METHODS = ("chunked", "fft", "reference")


def convolve(
    system: DiscreteStateSpace,
    c: jax.Array,
    u: jax.Array,
    *,
    skip: jax.Array | None = None,
    dtype: Any = None,
    method: str = "chunked",
    chunk_length: int = 64,
    segment_ids: jax.Array | None = None,
    bidirectional: bool = False,
    max_kernel_length: int | tuple[int, int] | None = None,
    implementation: str | None = None,
) -> jax.Array:
    """Runs the state space over a sequence.

    Args:
      system: the discrete state space of d features.
      c: readouts (see `discrete.readout`), [channels, d, n]; where bidirectional, the forward and
        then the backward ones, [2 * channels, d, n].
      u: input, [b, l, d], in the dtype of the system, or bfloat16: then "chunked" multiplies tokens
        by what it has of the system in bfloat16, and adds up, and carries states, in float32.
      skip: D [d], what u itself weighs in every channel; None is nothing.
      dtype: of y; None is that of the system.
      method: "chunked", "fft" or "reference".
      chunk_length: t of "chunked", a power of two.
      segment_ids: [b, l], int. 0 is padding, whose input counts as zero; where the number changes
        from one token to the next (padding aside) the state is reset. None: one segment.
      bidirectional: tokens see those behind them too, from distance 1 on.
      max_kernel_length: taps after which the kernel is zero, of each direction where there are
        two numbers; None for all of them.
      implementation: of method "chunked", a name; None is the platform's best.

    Returns:
      y [b, l, channels, d]; of no meaning where there is padding.

    Raises:
      ValueError: another method, or an implementation that cannot do this.
    """
    check_choice("method", method, METHODS)
    check(
        method == "chunked" or implementation is None,
        "implementation",
        implementation,
        f"must be None with method {method!r}, which has one only",
    )
    # Left to itself, XLA gathers what goes into an FFT, and states on every device.
    axes = partition.sharded_axes(("batch", "length", "ssm_features"), u.shape, chunk_length)
    if method != "chunked":
        axes = (axes[0], None, axes[2])
    (own,) = partition.sharded_axes(("ssm_own_features",), u.shape[2:])
    exchanges = axes[0] is not None and own is not None
    features = own if exchanges else axes[2]

    def run(
        system: DiscreteStateSpace,
        c: jax.Array,
        skip: jax.Array | None,
        u: jax.Array,
        segment_ids: jax.Array | None,
    ) -> jax.Array:
        if exchanges:
            u = _exchanged(u[:, :, None], chunk_length, 0, 2)[:, :, 0]
            if segment_ids is not None:
                segment_ids = partition.all_rows(segment_ids)
        y = _convolve(
            system,
            c,
            skip,
            u,
            segment_ids,
            dtype=dtype,
            method=method,
            chunk_length=chunk_length,
            bidirectional=bidirectional,
            max_kernel_length=max_kernel_length,
            implementation=implementation,
            num_shards=1 if axes[1] is None else partition.sequence_shards(),
        )
        return _exchanged(y, chunk_length, 2, 0) if exchanges else y

    run = partition.on_each_device(
        run,
        ((features,), (None, features, None), (features,), axes, axes[:2]),
        (*axes[:2], None, axes[2]),
    )
    return run(system, c, skip, u, segment_ids)


def _exchanged(x: jax.Array, t: int, split: int, concat: int) -> jax.Array:
    """x [b, l, c, d] with features (0) for rows (2), or rows for features.

    It is sent in blocks of t tokens, [d, c, b, m, t], where they divide the sequence, as the
    products within blocks take it: in another order it would be copied on both sides of them.
    """
    rows, length, *features = x.shape
    t = t if length % t == 0 else length
    x = jnp.transpose(x.reshape(rows, -1, t, *features), (4, 3, 0, 1, 2))
    x = jnp.transpose(partition.exchange(x, split, concat), (2, 3, 4, 1, 0))
    return x.reshape(x.shape[0], length, *x.shape[3:])


def _convolve(
    system: DiscreteStateSpace,
    c: jax.Array,
    skip: jax.Array | None,
    u: jax.Array,
    segment_ids: jax.Array | None,
    *,
    dtype: Any,
    method: str,
    chunk_length: int,
    bidirectional: bool,
    max_kernel_length: int | tuple[int, int] | None,
    implementation: str | None,
    num_shards: int,
) -> jax.Array:
    """`convolve`, of one of several shards of the sequence."""
    directions = (1, -1) if bidirectional else (1,)
    shards = SequenceShards(num_shards, directions)
    runs = None
    if segment_ids is not None:
        u = u * (segment_ids != 0).astype(u.dtype)[..., None]
        runs = number_runs(segment_ids, num_shards)
    c = c.reshape(len(directions), -1, *c.shape[1:])
    length = u.shape[1] * num_shards
    taps = _taps(max_kernel_length, len(directions), length)
    if method == "chunked":
        return _chunked(system, c, skip, u, runs, shards, taps, chunk_length, implementation, dtype)

    streams = u.astype(c.dtype)[None]
    runs = None if runs is None else runs[None]
    if bidirectional:
        runs = None if runs is None else jnp.concatenate([runs, runs[:, :, ::-1]])
        backward = delay(
            streams[:, :, ::-1],
            1,
            None if runs is None else runs[1:],
            SequenceShards(num_shards, (-1,)),
        )
        streams = jnp.concatenate([streams, backward])
    if method == "fft":
        k = kernel(system, c, max(taps))
        within = np.arange(max(taps)) < np.array(taps)[:, None]
        k = k * within.astype(k.dtype)[:, None, None]
        y = (fft_convolve if runs is None else fft_convolve_runs)(
            *((k, streams) if runs is None else (k, streams, runs))
        )
    else:
        cut = min(taps) < length
        if cut:
            each = [slice(s, s + 1) for s in range(len(taps))]
            late = [
                delay(streams[s], k, None if runs is None else runs[s], shards)
                for s, k in zip(each, taps)
            ]
            beyond = [-delayed_readout(system, c[s], k) for s, k in zip(each, taps)]
            streams, c = (jnp.concatenate(parts) for parts in ([streams, *late], [c, *beyond]))
            runs = None if runs is None else jnp.concatenate([runs, runs])
        y = recurrence.run(system, c, streams, runs)
        if cut:
            y = y.reshape(2, -1, *y.shape[1:]).sum(axis=0)
    y = y[0] + y[1, :, ::-1] if bidirectional else y[0]
    return chunked.plus_skip(y, skip, u).astype(dtype or y.dtype)


def _taps(
    max_kernel_length: int | tuple[int, int] | None, directions: int, length: int
) -> tuple[int, ...]:
    """How many taps there are in each direction: as many as there are tokens where none is cut."""
    if not isinstance(max_kernel_length, tuple):
        max_kernel_length = (max_kernel_length or length,) * 2
    return tuple(min(taps, length) for taps in max_kernel_length[:directions])


def _chunked(
    system: DiscreteStateSpace,
    c: jax.Array,
    skip: jax.Array | None,
    u: jax.Array,
    runs: jax.Array | None,
    shards: SequenceShards,
    taps: tuple[int, ...],
    chunk_length: int,
    implementation: str | None,
    dtype: Any,
) -> jax.Array:
    """Method "chunked", of kernels of so many taps, and c [s, channels, d, n]."""

    def run(
        c: jax.Array, skip: jax.Array | None, u: jax.Array, shards: SequenceShards, dtype: Any
    ) -> jax.Array:
        operators = chunked.operators(
            system,
            c,
            u.shape[1],
            shards.directions,
            skip=skip,
            num_shards=shards.number,
            chunk_length=chunk_length,
        )
        arguments = (operators, u, runs, shards, dtype)
        return CHUNKED.choose(implementation, *arguments)(*arguments)

    cut = [n < u.shape[1] * shards.number for n in taps]
    dtype = dtype or c.dtype
    # What lies beyond the last tap is taken off before the sum is rounded.
    y = run(c, skip, u, shards, c.dtype if any(cut) else dtype)
    # What lies beyond the last tap is what the same state space, read as C A^taps, makes of the
    # input of that many tokens ago, which is another one for each direction.
    for s in np.flatnonzero(cut):
        direction, of_direction = shards.directions[s], taps[s]
        beyond = delayed_readout(system, c[s : s + 1], of_direction)
        one = SequenceShards(shards.number, (direction,))

        def turned(x: jax.Array, direction: int = direction) -> jax.Array:
            return x[:, ::direction]

        own_runs = None if runs is None else turned(runs)[None]
        delayed = turned(delay(turned(u)[None], of_direction, own_runs, one)[0])
        y = y - run(beyond, None, delayed, one, c.dtype)
    return y.astype(dtype)
