"""A sequence as the state space runs through it: cut into shards, and into runs of one segment.

Shape letters: s streams (see `convolution`), b batch, l length, d features, n state size.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from spade_jax import partition
from spade_jax.ops.ssm.transition import Closed, by_feature


class SequenceShards(NamedTuple):
    """The shards of a sequence, one after the other, as streams go through them.

    Attributes:
      number: how many there are.
      directions: of each stream, 1 from left to right or -1.
    """

    number: int
    directions: tuple[int, ...]

    def from_earlier(self, x: jax.Array, distance: int) -> jax.Array:
        """x [s, ...] of the shard so many places earlier in each stream; zeros where none is."""
        if distance == 0:
            return x
        if distance >= self.number:
            return jnp.zeros_like(x)
        return jnp.stack(
            [
                partition.from_shard_before(x[stream], direction * distance)
                for stream, direction in enumerate(self.directions)
            ]
        )

    def entering(self, left: jax.Array, keep: jax.Array, transition: Closed) -> jax.Array:
        """The states [d, s, b, n] that enter a shard: by what the shards before, begun with zeros,
        end with.

        A scan in log2(shards) rounds: after each, `left` is what twice as many shards leave.

        Args:
          left: [d, s, b, n], the states that this shard ends with.
          keep: [s, b], 0 where a run ends within the shard, or on its way in.
          transition: A to the power of the shard's length.
        """
        if self.number == 1:
            return jnp.zeros_like(left)
        left_s = jnp.moveaxis(left, 1, 0)
        distance = 1
        while distance < self.number:
            earlier = jnp.moveaxis(self.from_earlier(left_s, distance), 0, 1)
            carried = kept(by_feature(transition.apply, earlier), keep)
            left_s = left_s + jnp.moveaxis(carried, 1, 0)
            keep = keep * self.from_earlier(keep, distance)
            transition = transition.power(2)
            distance *= 2
        return jnp.moveaxis(self.from_earlier(left_s, 1), 0, 1)


def number_runs(segment_ids: jax.Array, num_shards: int) -> jax.Array:
    """Numbers the segments of each row from left to right, [b, l]; padding counts to the left.

    Of one of so many shards of a sequence.
    """
    tokens = segment_ids != 0
    positions = jnp.arange(segment_ids.shape[1], dtype=jnp.int32)
    last_token = jax.lax.cummax(jnp.where(tokens, positions, 0), axis=1)
    filled = jnp.take_along_axis(segment_ids, last_token, axis=1)
    before = filled[:, :1]
    if num_shards > 1:
        # The segment of the last token in any shard before, which padding here counts to.
        last = jax.lax.all_gather(filled[:, -1] * tokens.any(axis=1), "sequence")
        places = jnp.arange(num_shards)[:, None]
        earlier = places < jax.lax.axis_index("sequence")
        where = jnp.max(jnp.where(earlier & (last != 0), places, -1), axis=0)
        before = jnp.where(where < 0, 0, jnp.take_along_axis(last, where[None], axis=0)[0])[:, None]
        begun = jnp.cumsum(tokens, axis=1) > 0
        filled = jnp.where(begun, filled, before)
    border = jnp.concatenate([before, filled[:, :-1]], axis=1) != filled
    runs = jnp.cumsum(border, axis=1, dtype=jnp.int32)
    if num_shards > 1:
        ended = jax.lax.all_gather(runs[:, -1], "sequence")
        runs = runs + jnp.sum(jnp.where(earlier, ended, 0), axis=0)[:, None]
    return runs


def delay(u: jax.Array, tokens: int, runs: jax.Array | None, shards: SequenceShards) -> jax.Array:
    """u [s, b, l, d], so many tokens later within its run [s, b, l]; zero where there was none."""

    def earlier(x: jax.Array) -> jax.Array:
        whole_shards, rest = divmod(tokens, x.shape[2])
        left = shards.from_earlier(x, whole_shards + 1)
        right = shards.from_earlier(x, whole_shards)
        return jnp.concatenate(
            [left[:, :, x.shape[2] - rest :], right[:, :, : -rest or None]], axis=2
        )

    if runs is None:
        return earlier(u)
    same = earlier(runs + 1) == runs + 1  # 0 is none.
    return earlier(u) * same.astype(u.dtype)[..., None]


def kept(states: jax.Array, keep: jax.Array | None) -> jax.Array:
    """States [d, ..., n], zero where keep [...] is."""
    return states if keep is None else states * keep[None, ..., None]
