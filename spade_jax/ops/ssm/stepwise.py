"""The recurrence for decoding: one token at a time, with all that `convolution.convolve` can do."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from spade_jax.ops.ssm.discrete import DiscreteStateSpace, step
from spade_jax.ops.ssm.kernel import delayed_readout


class SSMCache(NamedTuple):
    """What a state space keeps of the tokens so far, for b sequences.

    The last two are there only where the kernel is cut off: the inputs of its last taps, token i
    in slot i % taps, and the state that those make which have left it.
    """

    state: jax.Array  # [b, d, n]
    segment_id: jax.Array  # int32 [b], of the last token that is no padding; 0: none yet
    recent: jax.Array | None  # [b, taps, d]
    beyond: jax.Array | None  # [b, d, n]


Step = Callable[[jax.Array, jax.Array, jax.Array, SSMCache], tuple[jax.Array, SSMCache]]


def stepwise(
    system: DiscreteStateSpace,
    c: jax.Array,
    *,
    rows: int,
    length: int,
    max_kernel_length: int | None = None,
) -> tuple[Step, SSMCache]:
    """`convolve` causally, token by token.

    Args:
      system: the discrete state space of d features.
      c: readouts, [channels, d, n].
      rows: b, how many sequences.
      length: how many tokens there will be at most.
      max_kernel_length: as of `convolve`.

    Returns:
      The cache before the first token, and a function (u [b, d], index, segment_ids [b], cache) ->
      (y [b, channels, d], cache); index, an int32 scalar, counts the tokens before.
    """
    taps = max_kernel_length if max_kernel_length and max_kernel_length < length else None
    c_beyond = None if taps is None else -delayed_readout(system, c, taps)
    d, n = system.b.shape
    zeros = jnp.zeros((rows, d, n), c.dtype)
    recent = None if taps is None else jnp.zeros((rows, taps, d), c.dtype)
    start = SSMCache(zeros, jnp.zeros((rows,), jnp.int32), recent, None if taps is None else zeros)

    def token(
        u: jax.Array, index: jax.Array, segment_ids: jax.Array, cache: SSMCache
    ) -> tuple[jax.Array, SSMCache]:
        is_token = segment_ids != 0
        same = ~is_token | (segment_ids == cache.segment_id)
        keep = same.astype(u.dtype)[:, None, None]
        u = u * is_token.astype(u.dtype)[:, None]
        state, y = step(system, c, cache.state * keep, u)
        recent, beyond = cache.recent, cache.beyond
        if taps is not None:
            assert recent is not None
            assert beyond is not None
            assert c_beyond is not None
            recent = recent * keep
            slot = index % taps
            left = jax.lax.dynamic_index_in_dim(recent, slot, axis=1, keepdims=False)
            beyond, y_beyond = step(system, c_beyond, beyond * keep, left)
            recent = jax.lax.dynamic_update_index_in_dim(recent, u, slot, axis=1)
            y = y + y_beyond
        segment_id = jnp.where(is_token, segment_ids.astype(jnp.int32), cache.segment_id)
        return y, SSMCache(state, segment_id, recent, beyond)

    return token, start
