"""The state space over the next tokens of sequences whose past is in a state."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from spade_jax.ops.ssm import chunked
from spade_jax.ops.ssm.discrete import DiscreteStateSpace, step
from spade_jax.ops.ssm.kernel import delayed_readout
from spade_jax.ops.ssm.sequence import SequenceShards, number_runs


class CachedSystem(NamedTuple):
    """What is the same for all rows and tokens.

    beyond, C A^taps, is there only where the kernel is cut off.
    """

    system: DiscreteStateSpace
    c: jax.Array  # [channels, d, n]
    beyond: jax.Array | None  # [channels, d, n]


class SSMCache(NamedTuple):
    """What a state space keeps of the tokens so far, for b sequences.

    The last two are there only where the kernel is cut off: the inputs of its last taps, token i
    in slot i % taps, and the state that those make which have left it.
    """

    state: jax.Array  # [b, d, n]
    segment_id: jax.Array  # int32 [b], of the last token that is no padding; 0: none yet
    recent: jax.Array | None  # [b, taps, d]
    beyond: jax.Array | None  # [b, d, n]


def empty_cache(
    system: DiscreteStateSpace,
    c: jax.Array,
    *,
    rows: int,
    length: int,
    max_kernel_length: int | None = None,
) -> tuple[CachedSystem, SSMCache]:
    """The system, and the cache of `rows` sequences before their first token.

    Args:
      c: readouts, [channels, d, n].
      length: how many tokens there will be at most.
      max_kernel_length: as of `convolve`.
    """
    taps = max_kernel_length if max_kernel_length and max_kernel_length < length else None
    d, n = system.b.shape
    zeros = jnp.zeros((rows, d, n), c.dtype)
    segment_id = jnp.zeros((rows,), jnp.int32)
    if taps is None:
        return CachedSystem(system, c, None), SSMCache(zeros, segment_id, None, None)
    recent = jnp.zeros((rows, taps, d), c.dtype)
    beyond = -delayed_readout(system, c, taps)
    return CachedSystem(system, c, beyond), SSMCache(zeros, segment_id, recent, zeros)


def advance(
    fixed: CachedSystem,
    cache: SSMCache,
    u: jax.Array,
    segment_ids: jax.Array,
    index: jax.Array,
    *,
    chunk_length: int,
) -> tuple[jax.Array, SSMCache]:
    """What `convolve` gives, causally, for tokens `index`, `index` + 1, ….

    Whole chunks of a prompt are convolved, what is left goes token by token; so does all of it
    where the kernel is cut off.

    Args:
      u: [b, l, d], float32.
      segment_ids: int [b, l]; 0 is padding.
      index: int32 scalar, how many tokens were before.

    Returns:
      y [b, l, channels, d], and the cache with these tokens.
    """
    length = u.shape[1]
    if length == 1:
        y, cache = _token(fixed, cache, u[:, 0], segment_ids[:, 0], index)
        return y[:, None], cache
    whole_chunks = 0 if fixed.beyond is not None else length // chunk_length * chunk_length
    parts = []
    if whole_chunks:
        y, cache = _chunks(
            fixed, cache, u[:, :whole_chunks], segment_ids[:, :whole_chunks], chunk_length
        )
        parts.append(y)
    if whole_chunks < length:

        def token(
            carry: tuple[jax.Array, SSMCache], inputs: tuple[jax.Array, jax.Array]
        ) -> tuple[tuple[jax.Array, SSMCache], jax.Array]:
            index, cache = carry
            y, cache = _token(fixed, cache, *inputs, index)
            return (index + 1, cache), y

        rest = (u[:, whole_chunks:].swapaxes(0, 1), segment_ids[:, whole_chunks:].T)
        (_, cache), y = jax.lax.scan(token, (index + whole_chunks, cache), rest)
        parts.append(jnp.moveaxis(y, 0, 1))
    return jnp.concatenate(parts, axis=1), cache


def _chunks(
    fixed: CachedSystem,
    cache: SSMCache,
    u: jax.Array,
    segment_ids: jax.Array,
    chunk_length: int,
) -> tuple[jax.Array, SSMCache]:
    """`advance`, of whole chunks."""
    # The state's segment as a token before them, which runs are numbered from.
    segment_ids = jnp.concatenate([cache.segment_id[:, None], segment_ids.astype(jnp.int32)], 1)
    runs = number_runs(segment_ids, 1)
    u = u * (segment_ids[:, 1:] != 0).astype(u.dtype)[..., None]
    operators = chunked.operators(
        fixed.system, fixed.c[None], u.shape[1], (1,), chunk_length=chunk_length, carries=True
    )
    y, state = chunked.run_from(
        chunked.Start(cache.state[None], runs[None, :, 0]),
        operators,
        u,
        runs[:, 1:],
        SequenceShards(1, (1,)),
    )
    last = jnp.max(jnp.where(segment_ids != 0, jnp.arange(segment_ids.shape[1]), 0), axis=1)
    segment_id = jnp.take_along_axis(segment_ids, last[:, None], axis=1)[:, 0]
    return y, cache._replace(state=state[0], segment_id=segment_id)


def _token(
    fixed: CachedSystem,
    cache: SSMCache,
    u: jax.Array,
    segment_ids: jax.Array,
    index: jax.Array,
) -> tuple[jax.Array, SSMCache]:
    """`advance`, of one token: u [b, d], segment_ids [b] -> y [b, channels, d]."""
    is_token = segment_ids != 0
    same = ~is_token | (segment_ids == cache.segment_id)
    keep = same.astype(u.dtype)[:, None, None]
    u = u * is_token.astype(u.dtype)[:, None]
    state, y = step(fixed.system, fixed.c, cache.state * keep, u)
    recent, beyond = cache.recent, cache.beyond
    if fixed.beyond is not None:
        assert recent is not None
        assert beyond is not None
        recent = recent * keep
        slot = index % recent.shape[1]
        left = jax.lax.dynamic_index_in_dim(recent, slot, axis=1, keepdims=False)
        beyond, y_beyond = step(fixed.system, fixed.beyond, beyond * keep, left)
        recent = jax.lax.dynamic_update_index_in_dim(recent, u, slot, axis=1)
        y = y + y_beyond
    segment_id = jnp.where(is_token, segment_ids.astype(jnp.int32), cache.segment_id)
    return y, SSMCache(state, segment_id, recent, beyond)
