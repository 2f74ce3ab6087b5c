"""Full attention as two TPU kernels: forward, and all of its gradients.

A step of the grid has 128 queries of one group of heads, and all keys of the row in memory, which
it goes through in parts. Scores are [keys, queries]: what belongs to a query is then a row, whose
maxima and sums are additions of vectors, and no product in the loop needs a transposition.

The scores of a part are made while the part before it goes through its exponentials and the
products behind them. The compiler does not find that out by itself: what is to be done beside
each other has to lie in different memory, and the scores of all heads to be made together, for each
product keeps two of the four matrix units busy.

What a query adds to a key's score depends on how far they lie apart. Bias, and HIDDEN for keys
behind the query of causal attention, are one long tile [distances, 128] for each head, made from a
vector once for all rows: of it a block of queries reads the part that begins where its keys do.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from spade_jax.ops.attention.dropout import keeps
from spade_jax.ops.attention.pallas_tpu.full_specs import Full, Refs, Specs, inputs, taken
from spade_jax.ops.attention.pallas_tpu.heads import (
    BLOCK,
    by_group,
    filled_up,
    from_group,
    from_lanes,
    to_lanes,
)
from spade_jax.ops.attention.pallas_tpu.tiles import (
    FLOOR,
    HIDDEN,
    NN,
    NO_SEGMENT,
    NT,
    TINY,
    column,
    dot,
    heads_apart,
    kernel_parameters,
    like,
    skewed,
    turned,
)
from spade_jax.ops.attention.shards import DropoutWords
from spade_jax.ops.attention.softmax import named


@functools.partial(jax.custom_vjp, nondiff_argnums=(8,))
def attend(
    q: Array,
    k: Array,
    v: Array,
    vector: Array | None,
    query_segments: Array,
    key_segments: Array,
    first_key: Array,
    words: DropoutWords | None,
    full: Full,
) -> tuple[Array, Array]:
    """Attention, zero where a query sees nothing, and the logarithms of its sums.

    Args:
      q, k, v: [b, q, features of all heads], [b, j, features].
      vector: float32 [groups, heads of a group, n + m] with the filled up lengths n and m: at y,
        cyclically, what query i adds to key j = y + i - (n - 128).
      query_segments, key_segments: int32 [b, q], [b, j]; keys of 0 are not seen.
      first_key: int32 [1], the position of the first key where the first query's is 0.
      words: [b, h, q] and [j].

    Returns:
      [b, q, features]; float32 [b, h, q], FLOOR or less where nothing is seen.
    """
    specs = Specs(q, k, full)
    out, log_sum = pl.pallas_call(
        functools.partial(_forward_kernel, full=full),
        grid=specs.grid,
        in_specs=specs.inputs,
        out_specs=[specs.query, specs.log_sum],
        out_shape=[
            specs.result(q, q.shape[1]),
            jax.ShapeDtypeStruct(specs.log_sum_shape, jnp.float32),
        ],
        scratch_shapes=[specs.turned, *specs.columns, *specs.tiles(1), *specs.slots],
        compiler_params=kernel_parameters(),
        interpret=full.interpret,
        name="full_forward",
    )(*inputs(specs, q, k, v, vector, query_segments, key_segments, first_key, words))
    length = q.shape[1]
    return from_lanes(out, full.heads, length), from_group(log_sum, full.heads, length)


def _attend_forward(*arguments: Any) -> tuple[tuple[Array, Array], tuple[Any, ...]]:
    # Named, so that the kernel need not run again where the backward pass computes things again.
    out, log_sum = named(attend(*arguments))
    return (out, log_sum), (*arguments[:-1], out, log_sum)


def _attend_backward(full: Full, saved: tuple[Any, ...], d_outs: tuple[Array, Array]) -> Any:
    *arguments, out, log_sum = saved
    q, k, v, vector = arguments[:4]
    specs, heads = Specs(q, k, full), full.heads
    sums = pltpu.VMEM((heads.lanes, specs.m), jnp.float32)
    biased = [vector] if full.biased else []
    dq, dk, dv, *d_vector = pl.pallas_call(
        functools.partial(_backward_kernel, full=full),
        grid=specs.grid,
        in_specs=[*specs.inputs, specs.query, specs.query, specs.log_sum, specs.log_sum],
        out_specs=[specs.query, specs.key, specs.key, *[specs.vector] * full.biased],
        out_shape=[
            specs.result(q, q.shape[1]),
            specs.result(k, specs.m),
            specs.result(v, specs.m),
            *map(like, biased),
        ],
        scratch_shapes=[
            specs.turned,
            *specs.columns,
            *specs.tiles(2 if full.biased else 1),
            sums,
            sums,
            *specs.slots * 2,
        ],
        compiler_params=kernel_parameters(),
        interpret=full.interpret,
        name="full_backward",
    )(
        # What stands behind the queries would go into the sums over them.
        *inputs(specs, filled_up(q, specs.n, axis=1), *arguments[1:]),
        *(to_lanes(array, heads, specs.n) for array in (out, d_outs[0])),
        *(by_group(array, heads, specs.n) for array in (log_sum, d_outs[1])),
    )
    dq, dk, dv = (
        from_lanes(gradient, heads, array.shape[1])
        for gradient, array in ((dq, q), (dk, k), (dv, v))
    )
    if vector is not None and not d_vector:
        d_vector = [jnp.zeros_like(vector)]
    return dq, dk, dv, d_vector[0] if d_vector else None, None, None, None, None


attend.defvjp(_attend_forward, _attend_backward)


def _chunks(first_key: Any, keys: int, full: Full) -> Any:
    """How many chunks the step's queries see."""
    if not full.causal:
        return keys // full.chunk
    # Where it is known, the loop's length depends on the place in the grid alone.
    first = first_key[0] if full.first_key is None else full.first_key
    seen = (pl.program_id(2) + 1) * BLOCK - first
    return lax.div(jnp.clip(seen + full.chunk - 1, 0, keys), full.chunk)


def _go_through(
    chunks: Any,
    full: Full,
    begin: Callable[[Any, int], Any],
    end: Callable[[Any, int, Any, Any], Any],
    start: Any,
) -> Any:
    """Folds `end(at, slot, begun, before)` over all parts, `begun` being what `begin(at, slot)`
    gave, which begins the next part first. `at` is where a part begins, `slot` which memory it has.
    """

    def place(part: Any) -> Any:
        return pl.multiple_of(part * full.part, full.part)

    def alone(c: Any, before: Any) -> Any:
        return end(place(c), 0, begin(place(c), 0), before)

    def in_pairs(c: Any, both: Any) -> Any:
        begun, before = both
        for slot in range(2):
            part = 2 * c + slot
            following = begin(place(jnp.minimum(part + 1, 2 * chunks - 1)), 1 - slot)
            before = end(place(part), slot, begun, before)
            begun = following
        return begun, before

    if full.parts == 1:
        return lax.fori_loop(0, chunks, alone, start)
    return lax.fori_loop(0, chunks, in_pairs, (begin(0, 0), start))[1]


def _prepare_row(refs: Refs, x: Any) -> None:
    """Once for all queries of a row: keys' segments and words down the rows, and x [1, rows, lanes]
    turned to [lanes, rows]."""

    @pl.when(pl.program_id(2) == 0)
    def _prepare() -> None:
        for at in range(0, x.shape[1], BLOCK):
            here = slice(at, at + BLOCK)
            row = refs.key_segments[0][:, here]
            refs.segment_columns[here] = column(jnp.where(row == 0, NO_SEGMENT, row))
            if refs.key_words is not None:
                refs.word_columns[here] = column(refs.key_words[0][:, here])
            refs.turned[:, here] = turned(x[0, here])


def _prepare_tile(vector: Any, tile: Any) -> None:
    """Once for all rows, where there is a vector."""
    if vector is None:
        return

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


def _scores(refs: Refs, query: Array, key: Array, seen: Array, h: int, place: Any) -> Array:
    """[keys of the part, queries]; `place` is where the part begins in the tile."""
    scores = dot(key, query, NT)
    if refs.tile is not None:
        scores = scores + refs.tile[h, pl.ds(place, key.shape[0])]
    return jnp.where(seen, scores, HIDDEN)


def _keep(refs: Refs, here: Any, h: int, full: Full) -> Array:
    """Of a part: what dropout keeps, and by how much it grows."""
    words = refs.query_words[0, 0, h : h + 1, :]
    keep = keeps(words, refs.word_columns[here], full.dropout_rate)
    return jnp.where(keep, 1.0 / (1.0 - full.dropout_rate), 0.0)


def _forward_kernel(*all_refs: Any, full: Full) -> None:
    refs, (out, log_sum), slots = taken(all_refs, 2, full)
    heads, size = full.heads, full.heads.size
    _prepare_row(refs, refs.v)
    _prepare_tile(refs.vector, refs.tile)
    queries, own = heads_apart(refs.q[0], heads), refs.query_segments[0]
    tile_start = _tile_start()

    def score(at: Any, slot: int) -> list[Array]:
        here, place = pl.ds(at, full.part), pl.multiple_of(tile_start + at, BLOCK)
        key, seen = refs.k[0, here], refs.segment_columns[here] == own
        largest = []
        for h in range(heads.in_group):
            scores = _scores(refs, queries[h], key, seen, h, place)
            slots[slot][h] = scores
            largest.append(jnp.max(scores, axis=0, keepdims=True))
        return largest

    def attend_to(at: Any, slot: int, in_part: list[Array], before: Any) -> Any:
        here, after = pl.ds(at, full.part), []
        for h, (attended, largest, total) in enumerate(before):
            new = jnp.maximum(largest, in_part[h])
            correction, weights = jnp.exp(largest - new), jnp.exp(slots[slot][h] - new)
            total = total * correction + jnp.sum(weights, axis=0, keepdims=True)
            if full.dropout_rate > 0:
                weights = weights * _keep(refs, here, h, full)
            value = refs.turned[h * size : (h + 1) * size, here]
            attended = attended * correction + dot(value, weights.astype(value.dtype), NN)
            after.append((attended, new, total))
        return tuple(after)

    start = (
        jnp.zeros((size, BLOCK), jnp.float32),
        jnp.full((1, BLOCK), FLOOR),
        jnp.zeros((1, BLOCK), jnp.float32),
    )
    chunks = _chunks(refs.first_key, refs.k.shape[1], full)
    found = _go_through(chunks, full, score, attend_to, (start,) * heads.in_group)
    parts = []
    for h, (attended, largest, total) in enumerate(found):
        total = jnp.maximum(total, TINY)
        parts.append(attended * (1.0 / total))
        log_sum[0, 0, h : h + 1, :] = largest + jnp.log(total)
    out[0] = jnp.concatenate(parts, axis=0).T.astype(out.dtype)


def _backward_kernel(*all_refs: Any, full: Full) -> None:
    refs, between, memory = taken(all_refs, 8 if full.biased else 7, full)
    out, d_out, log_sum, d_log_sum, dq, dk, dv, *d_vectors = between
    d_tiles, (k_sums, v_sums, *slots) = memory[: full.biased], memory[full.biased :]
    score_slots, d_weight_slots = slots[: full.parts], slots[full.parts :]
    heads, size = full.heads, full.heads.size
    b, i, last = pl.program_id(1), pl.program_id(2), pl.num_programs(2) - 1
    _prepare_row(refs, refs.k)
    _prepare_tile(refs.vector, refs.tile)

    @pl.when(i == 0)
    def _begin_row() -> None:
        for sums in (k_sums, v_sums):
            sums[...] = jnp.zeros_like(sums)

    @pl.when((b == 0) & (i == 0))
    def _begin() -> None:
        for d_tile in d_tiles:
            d_tile[...] = jnp.zeros_like(d_tile)

    queries, d_outs = heads_apart(refs.q[0], heads), heads_apart(d_out[0], heads)
    turned_query, turned_d_out = turned(refs.q[0]), turned(d_out[0])
    own, tile_start = refs.query_segments[0], _tile_start()
    # What the softmax's own sum takes away from all gradients of scores, less what its logarithm's
    # gradient adds.
    product = (d_out[0].astype(jnp.float32) * out[0].astype(jnp.float32)).T
    level = [
        jnp.sum(product[h * size : (h + 1) * size], axis=0, keepdims=True)
        - d_log_sum[0, 0, h : h + 1, :]
        for h in range(heads.in_group)
    ]

    def score(at: Any, slot: int) -> None:
        here, place = pl.ds(at, full.part), pl.multiple_of(tile_start + at, BLOCK)
        key, value, seen = refs.k[0, here], refs.v[0, here], refs.segment_columns[here] == own
        for h in range(heads.in_group):
            score_slots[slot][h] = _scores(refs, queries[h], key, seen, h, place)
            d_weight_slots[slot][h] = dot(value, d_outs[h], NT)

    def add(at: Any, slot: int, _: None, before: Any) -> Any:
        here, place, after = pl.ds(at, full.part), pl.multiple_of(tile_start + at, BLOCK), []
        for h in range(heads.in_group):
            p = jnp.exp(score_slots[slot][h] - log_sum[0, 0, h : h + 1, :])
            weight, dp = p, d_weight_slots[slot][h]
            if full.dropout_rate > 0:
                factor = _keep(refs, here, h, full)
                weight, dp = p * factor, dp * factor
            ds = p * (dp - level[h])
            for d_tile in d_tiles:
                d_tile[h, pl.ds(place, full.part)] += ds
            # A product with the 64 rows of a head costs half of one with its 64 lanes of 128.
            own_rows = slice(h * size, (h + 1) * size)
            weight, ds = weight.astype(refs.v.dtype), ds.astype(refs.k.dtype)
            k_sums[own_rows, here] += dot(turned_query[own_rows], ds, NT)
            v_sums[own_rows, here] += dot(turned_d_out[own_rows], weight, NT)
            after.append(before[h] + dot(refs.turned[own_rows, here], ds, NN))
        return tuple(after)

    start = jnp.zeros((size, BLOCK), jnp.float32)
    chunks = _chunks(refs.first_key, refs.k.shape[1], full)
    found = _go_through(chunks, full, score, add, (start,) * heads.in_group)
    dq[0] = jnp.concatenate(found, axis=0).T.astype(dq.dtype)

    @pl.when(i == last)
    def _end_row() -> None:
        dk[0] = k_sums[...].T.astype(dk.dtype)
        dv[0] = v_sums[...].T.astype(dv.dtype)

    @pl.when((i == last) & (b == pl.num_programs(1) - 1))
    def _end() -> None:
        for d_vector, d_tile in zip(d_vectors, d_tiles):
            _sum_diagonals(d_tile, d_vector)


def _sum_diagonals(d_tile: Any, d_vector: Any) -> None:
    square = jnp.zeros((BLOCK, BLOCK), jnp.float32)
    for h in range(d_tile.shape[0]):
        tiles = [d_tile[h, at : at + BLOCK].T for at in range(0, d_tile.shape[1], BLOCK)]
        ring = skewed(jnp.concatenate([*tiles, square], axis=1), -1)
        d_vector[0, h : h + 1, :] = jnp.sum(ring, axis=0, keepdims=True)
