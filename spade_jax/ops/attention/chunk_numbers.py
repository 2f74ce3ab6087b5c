"""Which chunk each token of a row lies in.

A chunk ends after `size` tokens, or with its segment; padding counts to the segment before it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class ChunkPlace(NamedTuple):
    """Where a row's next token lies, int32 [b] each."""

    segment_id: Array  # of the last token that is no padding; 0: none yet
    position: Array  # of the next token in its segment
    chunk: Array  # the number of the last chunk


def first_place(rows: int) -> ChunkPlace:
    """Of the first token of rows."""
    return ChunkPlace(*(jnp.zeros((rows,), jnp.int32) for _ in range(3)))


def number_chunks(
    segment_ids: Array, size: int, place: ChunkPlace | None = None
) -> tuple[Array, Array, ChunkPlace]:
    """Numbers the chunks of each row from left to right.

    Args:
      segment_ids: int [b, l]; 0 is padding.
      place: of the first token; None: that of a row.

    Returns:
      The number of each token's chunk, int32 [b, l], at least 1, and 0 at padding; where its
      segment begins, int32 [b, l]; and the place behind the last token.
    """
    if place is None:
        place = first_place(segment_ids.shape[0])
    segment_ids = segment_ids.astype(jnp.int32)
    index = jnp.arange(segment_ids.shape[1], dtype=jnp.int32)[None]
    tokens = segment_ids != 0
    last_token = jax.lax.cummax(jnp.where(tokens, index, -1), axis=1)
    filled = jnp.take_along_axis(segment_ids, jnp.maximum(last_token, 0), axis=1)
    filled = jnp.where(last_token < 0, place.segment_id[:, None], filled)
    before = jnp.concatenate([place.segment_id[:, None], filled[:, :-1]], axis=1)
    start = jax.lax.cummax(
        jnp.where(filled != before, index, -place.position[:, None]),
        axis=1,
    )
    position = index - start
    number = place.chunk[:, None] + jnp.cumsum(position % size == 0, axis=1, dtype=jnp.int32)
    after = ChunkPlace(filled[:, -1], position[:, -1] + 1, number[:, -1])
    return jnp.where(tokens, number, 0), start, after
