"""Chunk attention: sequences are cut into chunks, and tokens see those of their own (MEGA-chunk).

Chunks begin with each segment of a row, and have `size` tokens but for its last one. Where all of
them lie at multiples of the size, as they do unless rows are packed, chunks are rows of full
attention. Elsewhere they are segments, within windows that reach as far as a chunk.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array

from spade_jax.ops.attention.chunk_numbers import number_chunks
from spade_jax.ops.attention.full import full_attention
from spade_jax.ops.attention.window import window_attention
from spade_jax.ops.branches import either
from spade_jax.ops.checks import check


def chunk_attention(
    query_blhk: Array,
    key_blhk: Array,
    value_blhk: Array,
    *,
    size: int,
    causal: bool,
    segment_ids: Array | None = None,
    bias: Array | None = None,
    weights: str = "softmax",
    dropout_rate: float = 0.0,
    dropout_key: Array | None = None,
    implementation: str | None = None,
) -> Array:
    """Attention of each position to those of its chunk; never an array of l x l.

    Args:
      query_blhk: [b, l, h, k], already scaled; any length.
      key_blhk, value_blhk: [b, l, h, k].
      size: tokens of a chunk; 2 at least.
      causal: see none to the right.
      segment_ids: int [b, l]; 0 is padding, which sees nothing and is never seen. Chunks begin
        anew with each segment. None: all of one segment.
      bias: float32 [h, 2 * size - 1], added to the scores: of keys `size` - 1 places before the
        query to as many behind it.
      weights, dropout_rate, dropout_key: as of `full_attention`.
      implementation: of full and window attention, a name; None is the platform's best.

    Returns:
      [b, l, h, k] in the dtype of the queries; of no meaning at padding.

    Raises:
      ValueError: a size below 2, a bias of another shape, or what `full_attention` and
        `window_attention` refuse.
    """
    check(size >= 2, "size", size, "must be at least 2")
    heads, length = query_blhk.shape[2], query_blhk.shape[1]
    check(
        bias is None or bias.shape == (heads, 2 * size - 1),
        "bias.shape",
        None if bias is None else bias.shape,
        f"must be [h, 2 * size - 1] = {(heads, 2 * size - 1)} for size = {size}",
    )
    settings: dict[str, Any] = {
        "causal": causal,
        "weights": weights,
        "dropout_rate": dropout_rate,
        "implementation": implementation,
    }

    def at_multiples(arrays: tuple[Any, ...], rest: tuple[Array | None, Array | None]) -> Array:
        *sequences, bias = arrays
        chunks, key = rest
        beyond = -length % size
        if chunks is None and beyond:
            chunks = jnp.ones(query_blhk.shape[:2], jnp.int32)
        if chunks is not None:
            chunks = jnp.pad(chunks, ((0, 0), (0, beyond)))
        attended = full_attention(
            *(jnp.pad(x, ((0, 0), (0, beyond), (0, 0), (0, 0))) for x in sequences),
            query_segment_ids=chunks,
            key_segment_ids=chunks,
            bias=bias,
            chunk_size=size,
            dropout_key=key,
            **settings,
        )
        return attended[:, :length]

    def anywhere(arrays: tuple[Any, ...], rest: tuple[Array, Array | None]) -> Array:
        *sequences, bias = arrays
        return window_attention(
            *sequences,
            radius=size - 1,
            segment_ids=rest[0],
            bias=bias,
            dropout_key=rest[1],
            **settings,
        )

    arrays = (query_blhk, key_blhk, value_blhk, bias)
    if segment_ids is None:
        return at_multiples(arrays, (None, dropout_key))
    chunks, start, _ = number_chunks(segment_ids, size)
    if length <= size:
        return at_multiples(arrays, (chunks, dropout_key))
    whole = jnp.all((start % size == 0) | (segment_ids == 0))
    return either(whole, at_multiples, anywhere, arrays, (chunks, dropout_key))
