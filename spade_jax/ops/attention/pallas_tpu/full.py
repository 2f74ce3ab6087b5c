"""How arrays come to the kernels of full attention."""

import jax.numpy as jnp
from jax import Array, lax

from spade_jax.ops.attention.full_xla import bias_of_all
from spade_jax.ops.attention.pallas_tpu import full_kernels
from spade_jax.ops.attention.pallas_tpu.full_specs import Full
from spade_jax.ops.attention.pallas_tpu.heads import BLOCK, Heads, alike, filled_up
from spade_jax.ops.attention.pallas_tpu.tiles import HIDDEN
from spade_jax.ops.attention.shards import DropoutWords
from spade_jax.ops.dispatch import interprets

# Queries, and keys, of one call of a kernel at most, in bfloat16: what it has in memory grows with
# them. Those of longer sequences are put together.
_PIECE = 4096


def attend(
    query_bqhk: Array,
    key_bjhk: Array,
    value_bjhk: Array,
    query_segment_ids: Array | None,
    key_segment_ids: Array | None,
    bias: Array | None,
    words: DropoutWords | None,
    *,
    causal: bool,
    dropout_rate: float,
    first_key: Array | int,
) -> tuple[Array, Array]:
    """What attends on one device, as `full_over_shards` asks for it; piece by piece."""
    if bias is not None:  # Then there are as many keys as queries, in all shards together.
        bias = bias_of_all(bias, query_bqhk.shape[1])
    query_segments, key_segments = _segments(
        query_segment_ids, key_segment_ids, query_bqhk.shape[:2], key_bjhk.shape[:2]
    )
    longest = _PIECE * 2 // query_bqhk.dtype.itemsize
    found = []
    for queries in _pieces(query_bqhk.shape[1], longest):
        parts = []
        for keys in _pieces(key_bjhk.shape[1], longest):
            if causal and isinstance(first_key, int) and first_key + keys.start >= queries.stop:
                continue  # All of them are behind the queries.
            parts.append(
                _attend_to_piece(
                    query_bqhk[:, queries],
                    key_bjhk[:, keys],
                    value_bjhk[:, keys],
                    query_segments[:, queries],
                    key_segments[:, keys],
                    bias,
                    None
                    if words is None
                    else DropoutWords(words.query_bhq[:, :, queries], words.key_j[keys]),
                    causal=causal,
                    dropout_rate=dropout_rate,
                    distance=first_key + keys.start - queries.start,
                )
            )
        found.append(_put_together(parts))
    attended, log_sum = zip(*found)
    return jnp.concatenate(attended, axis=1), jnp.concatenate(log_sum, axis=1)


def _segments(
    query_segment_ids: Array | None,
    key_segment_ids: Array | None,
    queries: tuple[int, ...],
    keys: tuple[int, ...],
) -> tuple[Array, Array]:
    """Both int32, of the shapes; a query sees the keys of its own number that are not 0."""
    if key_segment_ids is None:
        return jnp.ones(queries, jnp.int32), jnp.ones(keys, jnp.int32)
    if query_segment_ids is None:
        return jnp.ones(queries, jnp.int32), (key_segment_ids != 0).astype(jnp.int32)
    return query_segment_ids.astype(jnp.int32), key_segment_ids.astype(jnp.int32)


def _pieces(length: int, longest: int) -> list[slice]:
    """Equal pieces, whole multiples of a block but for the last."""
    count = -(-length // longest)
    size = -(-length // (count * BLOCK)) * BLOCK
    return [slice(at, min(at + size, length)) for at in range(0, length, size)]


def _attend_to_piece(
    query_bqhk: Array,
    key_bjhk: Array,
    value_bjhk: Array,
    query_segments: Array,
    key_segments: Array,
    bias: Array | None,
    words: DropoutWords | None,
    *,
    causal: bool,
    dropout_rate: float,
    distance: Array | int,
) -> tuple[Array, Array]:
    """One call of the kernels: [b, q, h, k] and [b, q, h]. The first key lies `distance` places
    behind the first query."""
    rows, queries, count, _ = query_bqhk.shape
    q, k, v = alike(query_bqhk, key_bjhk, value_bjhk)
    tiled = causal or bias is not None
    full = Full(
        Heads(count, q.shape[-1] // count),
        _chunk(k.shape[1], tiled),
        tiled=tiled,
        biased=bias is not None,
        causal=causal,
        first_key=distance if isinstance(distance, int) else None,
        dropout_rate=dropout_rate if words is not None else 0.0,
        interpret=interprets(),
    )
    n, m = full.lengths(q, k)
    attended, log_sum_bhq = full_kernels.attend(
        q,
        k,
        v,
        _vector(bias, full.heads, n, m, distance, causal) if tiled else None,
        query_segments,
        key_segments,
        jnp.asarray(distance, jnp.int32)[None],
        words,
        full,
    )
    attended_bqhk = attended.reshape(rows, queries, *full.heads)[..., : value_bjhk.shape[-1]]
    return attended_bqhk, log_sum_bhq.swapaxes(1, 2)


def _chunk(keys: int, tiled: bool) -> int:
    """Keys at a time: many keep the units busy, few fill up little and leave out more of what is
    behind causal queries."""
    for chunk in (256,) if tiled else (512, 256):
        if keys > chunk // 2 and -keys % chunk <= keys // 8:
            return chunk
    return BLOCK


def _vector(
    bias: Array | None,
    heads: Heads,
    n: int,
    m: int,
    distance: Array | int,
    causal: bool,
) -> Array:
    """What queries add to the scores of keys, as `full_kernels.attend` takes it: the bias
    [h, 2j - 1], and HIDDEN for keys behind the query if `causal`."""
    # From the last query to the first key, up to from the first query to the last key.
    between = n + m - 1
    if bias is None:
        vector = jnp.zeros((heads.total, between), jnp.float32)
    else:
        bias = filled_up(bias.astype(jnp.float32), heads.total, axis=0)
        zero = (bias.shape[1] - 1) // 2
        bias = jnp.pad(bias, ((0, 0), (n, m)))
        vector = lax.dynamic_slice_in_dim(bias, zero + distance + 1, between, axis=1)
    if causal:
        relative = distance + jnp.arange(1 - n, m, dtype=jnp.int32)
        vector = jnp.where((relative <= 0)[None], vector, HIDDEN)
    ring = jnp.roll(filled_up(vector, n + m, axis=1), 1 - BLOCK, axis=1)
    return ring.reshape(heads.groups, heads.in_group, n + m)


def _put_together(parts: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Attention to several sets of keys: each weighs as much as its sum."""
    if len(parts) == 1:
        return parts[0]
    attended, log_sum = (jnp.stack(arrays) for arrays in zip(*parts))
    largest = lax.stop_gradient(jnp.max(log_sum, axis=0))
    weight = jnp.exp(log_sum - largest[None])
    total = jnp.sum(weight, axis=0)
    mean = jnp.sum(attended.astype(jnp.float32) * (weight / total[None])[..., None], axis=0)
    return mean.astype(attended.dtype), largest + jnp.log(total)
