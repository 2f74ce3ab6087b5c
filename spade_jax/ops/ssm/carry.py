"""The state carried from block to block, in rounds that halve the number of blocks.

    leaving_k = keep_k A^t entering_k + written_k,      entering_{k+1} = leaving_k

Two neighbouring blocks are one block of 2t tokens, which writes A^t written_first + written_second
and has the transition A^{2t}. What enters such a pair enters its first block, and one product more
gives what enters the second. That is two matmuls over half the blocks a round, log2(m) rounds:
twice the operations of going from block to block, and 2 log2(m) matmuls where that takes m.

Shape letters: s directions, b batch, d features, n state size, m blocks.
"""

import jax
import jax.numpy as jnp

from spade_jax.ops.ssm.kernel import keep as keep_in_memory
from spade_jax.ops.ssm.sequence import SequenceShards, kept
from spade_jax.ops.ssm.transition import Closed, by_feature
from spade_jax.places import place

Transitions = tuple[Closed, ...]


@place("state space carry")
def entering_blocks(
    transitions: Transitions,
    start: jax.Array | None,
    written: jax.Array,
    keep: jax.Array | None,
    shards: SequenceShards,
) -> tuple[jax.Array, jax.Array]:
    """The states on entering each block, [d, s, b, m, n], from what each block writes, and the one
    that the last block leaves, [d, s, b, n], of a start with zeros where there are shards.

    Blocks are in the order in which each direction comes through them. transitions are A^t, A^2t,
    A^4t, …, bit_length(m) of them; all of their gradient is that of the first.

    start [d, s, b, n] enters the first block, zeros where None; keep [s, b, m] is 0 where a block
    ends in another run than the block before it.
    """
    zeros = jnp.zeros_like(written[..., 0, :])
    entering, left = _carry(transitions, zeros if start is None else start, written, keep)
    if shards.number == 1:
        return entering, left
    kept = jnp.ones(written.shape[1:3], written.dtype) if keep is None else keep.prod(axis=-1)
    start = shards.entering(left, kept, transitions[0].power(written.shape[3]))
    return _carry(transitions, start, written, keep)[0], left


@jax.custom_vjp
def _carry(
    transitions: Transitions, start: jax.Array, written: jax.Array, keep: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """The states on entering each block, [d, s, b, m, n], and the one that the last block leaves.

    start [d, s, b, n] enters the first block; written and keep as of `entering_blocks`.
    """
    return _in_rounds(transitions, start, written, keep)


def _in_rounds(
    transitions: Transitions,
    start: jax.Array,
    written: jax.Array,
    keep: jax.Array | None,
    reverse: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """`_carry`; reversed, from the last block to the first."""

    def carried(states: jax.Array, keep: jax.Array | None) -> jax.Array:
        return kept(by_feature(transitions[0].apply, states), keep)

    blocks = written.shape[3]
    if blocks % 2:
        # The one that is alone comes first.
        one, others = (-1, slice(0, -1)) if reverse else (0, slice(1, None))
        keep_one = None if keep is None else keep[..., one]
        left = carried(start, keep_one) + written[..., one, :]
        alone = start[..., None, :]
        if blocks == 1:
            return alone, left
        keep_others = None if keep is None else keep[..., others]
        entering, left = _in_rounds(
            transitions, left, written[..., others, :], keep_others, reverse
        )
        parts = (entering, alone) if reverse else (alone, entering)
        return jnp.concatenate(parts, axis=3), left
    pairs = written.reshape(*written.shape[:3], -1, 2, written.shape[-1])
    early, late = (1, 0) if reverse else (0, 1)
    keep_early = keep_late = keep_both = None
    if keep is not None:
        keep_pairs = keep.reshape(*keep.shape[:2], -1, 2)
        keep_early, keep_late = keep_pairs[..., early], keep_pairs[..., late]
        keep_both = keep_early * keep_late
    written_early = pairs[..., early, :]
    both = carried(written_early, keep_late) + pairs[..., late, :]
    first, left = _in_rounds(transitions[1:], start, both, keep_both, reverse)
    second = carried(first, keep_early) + written_early
    entering = jnp.stack((second, first) if reverse else (first, second), axis=4)
    return entering.reshape(written.shape), left


def _carry_forward(transitions, start, written, keep):
    entering, left = _carry(transitions, start, written, keep)
    entering = keep_in_memory(entering)
    return (entering, left), (transitions, entering, keep)


def _carry_backward(residuals, cotangents):
    """The reversed recurrence, and then the transition's gradient in one product over all blocks.

    JAX's own rule would add up the gradients of each round, and those of the powers.
    """
    transitions, entering, keep = residuals
    cotangent, end = cotangents
    # `later` is the cotangent of the state that the next block enters with, which this one wrote.
    transposed = tuple(transition.transpose() for transition in transitions)
    later, start = _in_rounds(transposed, end, cotangent, keep, reverse=True)
    _, pullback = jax.vjp(lambda a: by_feature(a.apply, kept(entering, keep)), transitions[0])
    gradients = (*pullback(later), *jax.tree.map(jnp.zeros_like, transitions[1:]))
    return gradients, start, later, None if keep is None else jnp.zeros_like(keep)


_carry.defvjp(_carry_forward, _carry_backward)
