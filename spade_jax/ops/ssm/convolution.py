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

import jax
import jax.numpy as jnp

from spade_jax import partition
from spade_jax.ops.checks import check, check_choice
from spade_jax.ops.dispatch import Operation
from spade_jax.ops.ssm import chunked, recurrence
from spade_jax.ops.ssm.discrete import DiscreteStateSpace
from spade_jax.ops.ssm.fft import fft_convolve, fft_convolve_runs
from spade_jax.ops.ssm.kernel import delayed_readout, kernel
from spade_jax.ops.ssm.sequence import SequenceShards, delay, number_runs

CHUNKED = Operation("chunked state space")
CHUNKED.register("xla", chunked.run, platforms=("cpu", "gpu", "tpu"))

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
    implementation: str | None = None,
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
      implementation: of method "chunked", a name; None is the platform's best.

    Returns:
      y [b, l, channels, d], of no meaning where there is padding.

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
            implementation=implementation,
            num_shards=1 if axes[1] is None else partition.sequence_shards(),
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
    implementation: str | None,
    num_shards: int,
) -> jax.Array:
    """`convolve`, of one of several shards of the sequence."""
    shards = SequenceShards(num_shards, (1, -1) if bidirectional else (1,))
    runs = None
    if segment_ids is not None:
        u = u * (segment_ids != 0).astype(u.dtype)[..., None]
        runs = number_runs(segment_ids, num_shards)[None]
    streams, readouts = u[None], c[None]
    if bidirectional:
        runs = None if runs is None else jnp.concatenate([runs, runs[:, :, ::-1]])
        backward = delay(
            u[None, :, ::-1],
            1,
            None if runs is None else runs[1:],
            SequenceShards(num_shards, (-1,)),
        )
        streams = jnp.concatenate([streams, backward])
        readouts = c.reshape(2, -1, *c.shape[1:])

    length = u.shape[1] * num_shards
    cut = max_kernel_length is not None and max_kernel_length < length
    if method == "fft":
        taps = kernel(system, readouts, min(length, max_kernel_length or length))
        y = (fft_convolve if runs is None else fft_convolve_runs)(
            *((taps, streams) if runs is None else (taps, streams, runs))
        )
    else:
        if cut:
            assert max_kernel_length is not None
            # What lies beyond the last tap is what the same state space, read as C A^max, makes
            # of the input of that many tokens ago.
            beyond = -delayed_readout(system, readouts, max_kernel_length)
            streams = jnp.concatenate([streams, delay(streams, max_kernel_length, runs, shards)])
            readouts = jnp.concatenate([readouts, beyond])
            runs = None if runs is None else jnp.concatenate([runs, runs])
            shards = SequenceShards(num_shards, shards.directions * 2)
        if method == "reference":
            y = recurrence.run(system, readouts, streams, runs)
        else:
            arguments = (system, readouts, streams, runs, shards)
            run = CHUNKED.choose(implementation, *arguments, chunk_length=chunk_length)
            y = run(*arguments, chunk_length=chunk_length)
        if cut:
            y = y.reshape(2, -1, *y.shape[1:]).sum(axis=0)
    return y[0] + y[1, :, ::-1] if bidirectional else y[0]
