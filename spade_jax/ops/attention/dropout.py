"""Dropout of attention probabilities that knows nothing of blocks, spans, shards or kernels."""

import jax
import jax.numpy as jnp
from jax import Array, lax

from spade_jax.ops.checks import check

# Changes with the numbers: a run that drops goes on with those that it began with, or not at all.
# Version 1, of which no run says anything, drew them by Threefry.
NUMBERS_VERSION = 2


def check_dropout(rate: float, key: Array | None) -> None:
    """Raises ValueError for a rate outside [0, 1), or one that lacks a key."""
    check(0.0 <= rate < 1.0, "dropout_rate", rate, "must be in [0, 1)")
    check(rate == 0.0 or key is not None, "dropout_rate", rate, "must be 0 without a dropout_key")


# Each probability is kept or dropped by the dropout key and its own place alone: so that they are
# the same ones however the computation is cut up, and whatever computes it.


def query_words(key: Array, numbers: Array) -> Array:
    """Of each query a random word, by the dropout key (of `jax.random`) and its number (see
    `number_queries`): uint32 of the numbers' shape."""
    return _scrambled(numbers.astype(jnp.uint32) ^ jax.random.bits(key, (2,), jnp.uint32)[0])


def key_words(key: Array, positions: Array) -> Array:
    """Of each key a random word, by the dropout key and its position in the sequence, int32: uint32
    of the same shape."""
    # Scrambled twice, for queries and keys are numbered alike.
    own = _scrambled(positions.astype(jnp.uint32))
    return _scrambled(own ^ jax.random.bits(key, (2,), jnp.uint32)[1])


def keeps(query_words: Array, key_words: Array, rate: float) -> Array:
    """Whether dropout at this rate keeps a probability, by the words of its query and key: bool of
    the shape to which these broadcast.

    Two multiplications for each probability, where a cipher such as Threefry takes some 75
    operations.
    """
    # The hash's last step would change the lower bits alone.
    word = _half_scrambled(query_words + key_words)
    return word < jnp.uint32(min(round((1.0 - rate) * 2**32), 2**32 - 1))


def _scrambled(word: Array) -> Array:
    """A bijection of uint32: each bit that is turned turns every other one half of the time.

    Of the kind of MurmurHash3's last steps, with the constants of "lowbias32" (C. Wellons, Hash
    Function Prospector).
    """
    word = _half_scrambled(word)
    return word ^ lax.shift_right_logical(word, jnp.uint32(16))


def _half_scrambled(word: Array) -> Array:
    word = (word ^ lax.shift_right_logical(word, jnp.uint32(16))) * jnp.uint32(0x7FEB352D)
    return (word ^ lax.shift_right_logical(word, jnp.uint32(15))) * jnp.uint32(0x846CA68B)


def number_queries(
    rows: Array, heads: Array, positions: Array, *, num_heads: int, length: int
) -> Array:
    """Numbers the queries of an array [b, h, l], modulo 2 ** 32.

    Args:
      rows, heads, positions: where the ones at hand lie along each axis, int32 vectors.
      num_heads, length: of the whole array.

    Returns:
      uint32 [rows, heads, positions].
    """
    rows, heads, positions = (place.astype(jnp.uint32) for place in (rows, heads, positions))
    row_and_head = rows[:, None] * num_heads + heads[None]
    return row_and_head[..., None] * length + positions[None, None]
