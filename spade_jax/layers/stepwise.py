"""Token by token: how a decoder runs when each token depends on what came out for the last one.

A part that has a past offers `stepwise(...)`. It computes at once whatever stays the same from
token to token (the keys and values of cross-attention, a discrete state space, a row of relative
biases), and returns a function for one token, which holds on to that, and the cache of no tokens
at all. A cache is a pytree of arrays [b, ...] and nothing else: one row for each sequence, so that
beam search may pick rows.
"""

from collections.abc import Callable
from typing import Any

import jax

Cache = Any

# (x [b, 1, d], index, segment_ids int [b, 1], cache) -> (y [b, 1, d], cache): the token after
# `index` others, an int32 scalar. Segment 0 is padding.
MixerStep = Callable[[jax.Array, jax.Array, jax.Array, Cache], tuple[jax.Array, Cache]]
