"""Full attention as two TPU kernels: forward, and all of its gradients.

A step of the grid has 128 queries of one group of heads, and all keys of the row in memory, which
it goes through in chunks. Scores are [keys, queries]: what belongs to a query is then a row, whose
maxima and sums are additions of vectors, and no product in the loop needs a transposition.

What a query adds to a key's score depends on how far they lie apart. Bias, and HIDDEN for keys
behind the query of causal attention, are one long tile [distances, 128] for each head, made from a
vector once for all rows: of it a block of queries reads the part that begins where its keys do.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from spade_jax.ops.attention.softmax import named
from spade_jax.ops.attention.tpu_tiles import (
    BLOCK,
    FLOOR,
    HIDDEN,
    NN,
    NO_SEGMENT,
    NT,
    TINY,
    Heads,
    column,
    dot,
    heads_apart,
    kernel_parameters,
    like,
    skewed,
)

# Of the 64 MiB of a v5p's core.
_VMEM_BYTES = 48 * 2**20


class Full(NamedTuple):
    """What the kernels are made for.

    Attributes:
      chunk: keys at a time, a multiple of 128.
      tiled: there is a vector of what queries add to scores.
      biased: it has a gradient.
      causal: chunks that no query of a block sees are left out.
    """

    heads: Heads
    chunk: int
    tiled: bool
    biased: bool
    causal: bool
    interpret: bool


@functools.partial(jax.custom_vjp, nondiff_argnums=(7,))
def attend(
    q: Array,
    k: Array,
    v: Array,
    vector: Array | None,
    query_segments: Array,
    key_segments: Array,
    first_key: Array,
    full: Full,
) -> tuple[Array, Array]:
    """Attention, zero where a query sees nothing, and the logarithms of its sums.

    Args:
      q: [b, n, lanes of all heads], n a multiple of 128.
      k, v: [b, m, lanes], m a multiple of the chunk.
      vector: float32 [groups, heads of a group, n + m]: at y, cyclically, what query i adds to key
        j = y + i - (n - 128).
      query_segments, key_segments: int32 [b, n], [b, m]; NO_SEGMENT and 0 of keys are not seen.
      first_key: int32 [1], the position of the first key where the first query's is 0.

    Returns:
      [b, n, lanes]; float32 [b, groups, heads of a group, n], FLOOR or less where nothing is seen.
    """
    specs = _Specs(q, k, full)
    m = k.shape[1]
    scratch = [pltpu.VMEM((m, BLOCK), jnp.int32), pltpu.VMEM((full.heads.lanes, m), q.dtype)]
    return pl.pallas_call(
        functools.partial(_forward_kernel, full=full),
        grid=specs.grid,
        in_specs=specs.inputs,
        out_specs=[specs.query, specs.log_sum],
        out_shape=[like(q), jax.ShapeDtypeStruct(specs.log_sum_shape, jnp.float32)],
        scratch_shapes=scratch + specs.tiles(1),
        compiler_params=kernel_parameters(_VMEM_BYTES),
        interpret=full.interpret,
        name="full_forward",
    )(*_inputs(q, k, v, vector, query_segments, key_segments, first_key))


def _attend_forward(*arguments: Any) -> tuple[tuple[Array, Array], tuple[Any, ...]]:
    # Named, so that the kernel need not run again where the backward pass computes things again.
    out, log_sum = named(*attend(*arguments))
    return (out, log_sum), (*arguments[:-1], out, log_sum)


def _attend_backward(full: Full, saved: tuple[Any, ...], d_outs: tuple[Array, Array]) -> Any:
    *arguments, out, log_sum = saved
    q, k, v, vector = arguments[:4]
    d_out, d_log_sum = d_outs
    specs, m, lanes = _Specs(q, k, full), k.shape[1], full.heads.lanes
    scratch = [
        pltpu.VMEM((m, BLOCK), jnp.int32),
        pltpu.VMEM((lanes, m), q.dtype),
        pltpu.VMEM((m, lanes), jnp.float32),
        pltpu.VMEM((m, lanes), jnp.float32),
    ]
    biased = [vector] if full.biased else []
    dq, dk, dv, *d_vector = pl.pallas_call(
        functools.partial(_backward_kernel, full=full),
        grid=specs.grid,
        in_specs=[*specs.inputs, specs.query, specs.query, specs.log_sum, specs.log_sum],
        out_specs=[specs.query, specs.key, specs.key, *[specs.vector] * full.biased],
        out_shape=[like(array) for array in (q, k, v, *biased)],
        scratch_shapes=scratch + specs.tiles(2 if full.biased else 1),
        compiler_params=kernel_parameters(_VMEM_BYTES),
        interpret=full.interpret,
        name="full_backward",
    )(*_inputs(*arguments), out, d_out, log_sum, d_log_sum)
    if vector is not None and not d_vector:
        d_vector = [jnp.zeros_like(vector)]
    return dq, dk, dv, d_vector[0] if d_vector else None, None, None, None


attend.defvjp(_attend_forward, _attend_backward)


class _Specs:
    """The grid, and the blocks of arrays that a step has."""

    def __init__(self, q: Array, k: Array, full: Full):
        (b, n, _), m, heads = q.shape, k.shape[1], full.heads
        self.full, self.n, self.m = full, n, m
        self.grid = (heads.groups, b, n // BLOCK)
        self.query = pl.BlockSpec((1, BLOCK, heads.lanes), lambda g, b, i: (b, i, g))
        self.key = pl.BlockSpec((1, m, heads.lanes), lambda g, b, i: (b, 0, g))
        self.vector = pl.BlockSpec((1, heads.in_group, n + m), lambda g, b, i: (g, 0, 0))
        self.log_sum = pl.BlockSpec((1, 1, heads.in_group, BLOCK), lambda g, b, i: (b, g, 0, i))
        self.log_sum_shape = (b, heads.groups, heads.in_group, n)
        self.inputs = [
            pl.BlockSpec(memory_space=pltpu.SMEM),
            *[self.vector] * full.tiled,
            self.query,
            self.key,
            self.key,
            pl.BlockSpec((1, 1, BLOCK), lambda g, b, i: (b, 0, i)),
            pl.BlockSpec((1, 1, m), lambda g, b, i: (b, 0, 0)),
        ]

    def tiles(self, count: int) -> list[Any]:
        """So many long tiles, if there is a vector."""
        shape = (self.full.heads.in_group, self.n - BLOCK + self.m, BLOCK)
        return [pltpu.VMEM(shape, jnp.float32)] * (count if self.full.tiled else 0)


def _inputs(
    q: Array,
    k: Array,
    v: Array,
    vector: Array | None,
    query_segments: Array,
    key_segments: Array,
    first_key: Array,
) -> list[Array]:
    """In the order in which the kernels take them."""
    vectors = [] if vector is None else [vector]
    return [first_key, *vectors, q, k, v, query_segments[:, None], key_segments[:, None]]


def _chunks(first_key: Any, keys: int, full: Full) -> Any:
    """How many chunks the step's queries see."""
    if not full.causal:
        return keys // full.chunk
    seen = (pl.program_id(2) + 1) * BLOCK - first_key[0]
    return lax.div(jnp.clip(seen + full.chunk - 1, 0, keys), full.chunk)


def _turn(x: Any, turned: Any) -> None:
    """x [1, rows, lanes] into turned [lanes, rows]; the unit for it takes float32."""
    for at in range(0, x.shape[1], BLOCK):
        part = x[0, at : at + BLOCK].astype(jnp.float32)
        turned[:, at : at + BLOCK] = part.T.astype(turned.dtype)


def _prepare_row(segments: Any, column_segments: Any, x: Any, turned: Any) -> None:
    """Once for all queries of a row: the keys' segments down the rows, and x turned."""

    @pl.when(pl.program_id(2) == 0)
    def _prepare() -> None:
        for at in range(0, segments.shape[2], BLOCK):
            row = segments[0][:, at : at + BLOCK]
            column_segments[at : at + BLOCK] = column(jnp.where(row == 0, NO_SEGMENT, row))
        _turn(x, turned)


def _prepare_tile(vector: Any, tile: Any) -> None:
    """Once for all rows."""

    @pl.when((pl.program_id(1) == 0) & (pl.program_id(2) == 0))
    def _prepare() -> None:
        for h in range(tile.shape[0]):
            ring = jnp.broadcast_to(vector[0, h : h + 1, :], (BLOCK, vector.shape[2]))
            skew = skewed(ring, 1)
            for at in range(0, tile.shape[1], BLOCK):
                tile[h, at : at + BLOCK] = skew[:, at : at + BLOCK].T


def _tile_start() -> Any:
    """Where in the long tile the part of the step's queries begins."""
    return (pl.num_programs(2) - 1 - pl.program_id(2)) * BLOCK


def _scores(query: Array, key: Array, seen: Array, tile: Any, h: int, place: Any) -> Array:
    """[keys of the chunk, queries]; `place` is where the chunk begins in the tile."""
    scores = dot(key, query, NT)
    if tile is not None:
        scores = scores + tile[h, pl.ds(place, key.shape[0])]
    return jnp.where(seen, scores, HIDDEN)


def _forward_kernel(first_key: Any, *refs: Any, full: Full) -> None:
    vector, refs = (refs[0], refs[1:]) if full.tiled else (None, refs)
    q, k, v, query_segments, key_segments, out, log_sum, column_segments, turned, *tiles = refs
    heads, size, chunk = full.heads, full.heads.size, full.chunk
    tile = tiles[0] if full.tiled else None
    _prepare_row(key_segments, column_segments, v, turned)
    if tile is not None:
        _prepare_tile(vector, tile)
    queries, own, tile_start = heads_apart(q[0], heads), query_segments[0], _tile_start()

    def add_chunk(c: Any, before: Any) -> Any:
        at = pl.multiple_of(c * chunk, chunk)
        here = pl.ds(at, chunk)
        place = pl.multiple_of(tile_start + at, BLOCK)
        key, seen = k[0, here], column_segments[here] == own
        after = []
        for h, (attended, largest, total) in enumerate(before):
            scores = _scores(queries[h], key, seen, tile, h, place)
            new = jnp.maximum(largest, jnp.max(scores, axis=0, keepdims=True))
            correction, weights = jnp.exp(largest - new), jnp.exp(scores - new)
            total = total * correction + jnp.sum(weights, axis=0, keepdims=True)
            value = turned[h * size : (h + 1) * size, here]
            attended = attended * correction + dot(value, weights.astype(value.dtype), NN)
            after.append((attended, new, total))
        return tuple(after)

    start = (
        jnp.zeros((size, BLOCK), jnp.float32),
        jnp.full((1, BLOCK), FLOOR),
        jnp.zeros((1, BLOCK), jnp.float32),
    )
    found = lax.fori_loop(
        0, _chunks(first_key, k.shape[1], full), add_chunk, (start,) * heads.in_group
    )
    parts = []
    for h, (attended, largest, total) in enumerate(found):
        total = jnp.maximum(total, TINY)
        parts.append(attended * (1.0 / total))
        log_sum[0, 0, h : h + 1, :] = largest + jnp.log(total)
    out[0] = jnp.concatenate(parts, axis=0).T.astype(out.dtype)


def _backward_kernel(first_key: Any, *refs: Any, full: Full) -> None:
    vector, refs = (refs[0], refs[1:]) if full.tiled else (None, refs)
    q, k, v, query_segments, key_segments, out, d_out, log_sum, d_log_sum, dq, dk, dv, *rest = refs
    d_vector, rest = (rest[0], rest[1:]) if full.biased else (None, rest)
    column_segments, turned, k_sums, v_sums, *tiles = rest
    heads, size, chunk = full.heads, full.heads.size, full.chunk
    tile = tiles[0] if full.tiled else None
    d_tile = tiles[1] if full.biased else None
    b, i = pl.program_id(1), pl.program_id(2)
    _prepare_row(key_segments, column_segments, k, turned)
    if tile is not None:
        _prepare_tile(vector, tile)

    @pl.when(i == 0)
    def _begin_row() -> None:
        k_sums[...] = jnp.zeros_like(k_sums)
        v_sums[...] = jnp.zeros_like(v_sums)

    if d_tile is not None:

        @pl.when((b == 0) & (i == 0))
        def _begin() -> None:
            d_tile[...] = jnp.zeros_like(d_tile)

    queries, d_outs = heads_apart(q[0], heads), heads_apart(d_out[0], heads)
    own, tile_start = query_segments[0], _tile_start()
    product = (d_out[0].astype(jnp.float32) * out[0].astype(jnp.float32)).T
    # What the softmax's own sum takes away from all gradients of scores, less what its logarithm's
    # gradient adds.
    level = [
        jnp.sum(product[h * size : (h + 1) * size], axis=0, keepdims=True)
        - d_log_sum[0, 0, h : h + 1, :]
        for h in range(heads.in_group)
    ]
    all_queries, all_d_outs = jnp.concatenate(queries), jnp.concatenate(d_outs)

    def add_chunk(c: Any, before: Any) -> Any:
        at = pl.multiple_of(c * chunk, chunk)
        here = pl.ds(at, chunk)
        place = pl.multiple_of(tile_start + at, BLOCK)
        key, value, seen = k[0, here], v[0, here], column_segments[here] == own
        weights, d_scores, after = [], [], []
        for h in range(heads.in_group):
            scores = _scores(queries[h], key, seen, tile, h, place)
            p = jnp.exp(scores - log_sum[0, 0, h : h + 1, :])
            ds = p * (dot(value, d_outs[h], NT) - level[h])
            if d_tile is not None:
                d_tile[h, pl.ds(place, chunk)] += ds
            weights.append(p.astype(key.dtype))
            d_scores.append(ds.astype(key.dtype))
            after.append(before[h] + dot(turned[h * size : (h + 1) * size, here], d_scores[h], NN))
        k_sums[here] += dot(jnp.concatenate(d_scores, axis=1), all_queries, NN)
        v_sums[here] += dot(jnp.concatenate(weights, axis=1), all_d_outs, NN)
        return tuple(after)

    start = jnp.zeros((size, BLOCK), jnp.float32)
    found = lax.fori_loop(
        0, _chunks(first_key, k.shape[1], full), add_chunk, (start,) * heads.in_group
    )
    dq[0] = jnp.concatenate(found, axis=0).T.astype(dq.dtype)

    @pl.when(i == pl.num_programs(2) - 1)
    def _end_row() -> None:
        dk[0] = k_sums[...].astype(dk.dtype)
        dv[0] = v_sums[...].astype(dv.dtype)

    if d_tile is not None:

        @pl.when((b == pl.num_programs(1) - 1) & (i == pl.num_programs(2) - 1))
        def _sum_diagonals() -> None:
            square = jnp.zeros((BLOCK, BLOCK), jnp.float32)
            for h in range(heads.in_group):
                tiles = [d_tile[h, at : at + BLOCK].T for at in range(0, d_tile.shape[1], BLOCK)]
                ring = skewed(jnp.concatenate([*tiles, square], axis=1), -1)
                d_vector[0, h : h + 1, :] = jnp.sum(ring, axis=0, keepdims=True)
