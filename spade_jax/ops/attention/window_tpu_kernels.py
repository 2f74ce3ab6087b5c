"""Window attention as two TPU kernels: forward, and all of its gradients.

A block of 128 queries sees its own block of keys and those that its window reaches, which are one
tile of scores: softmax needs no running maximum, and the backward pass keeps nothing of the forward
one. A step of the grid has a span of such blocks, of one group of heads and one row; spans follow
one another, so that the gradients of keys are finished one step after the last query that sees
them, and the bias's is summed up on the way.

What a query adds to a key's score depends on how far they lie apart: bias, and HIDDEN beyond the
window, are one tile for each head, made from a vector once for all rows and spans.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from spade_jax.ops.attention.tpu_tiles import (
    BLOCK,
    FLOOR,
    HIDDEN,
    NN,
    NO_SEGMENT,
    NT,
    TINY,
    TN,
    Heads,
    column,
    dot,
    heads_apart,
    heads_together,
    kernel_parameters,
    like,
    skewed,
)

# Of the 64 MiB of a v5p's core.
_VMEM_BYTES = 48 * 2**20


class Window(NamedTuple):
    """What the kernels are made for.

    Attributes:
      before, behind: blocks of keys that a block of queries sees beside its own.
      span: queries of a step, whole multiples of the blocks before.
      biased: the vector has a gradient.
    """

    heads: Heads
    before: int
    behind: int
    span: int
    biased: bool
    interpret: bool

    @property
    def blocks(self) -> int:
        """Of keys, for one of queries."""
        return self.before + 1 + self.behind

    @property
    def ring(self) -> int:
        """Entries of the vector: at c - r, cyclically, what query r adds to key c of the tile."""
        return (self.blocks + 1) * BLOCK


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def attend(q: Array, k: Array, v: Array, vector: Array, segments: Array, window: Window) -> Array:
    """Attention, zero where a query sees nothing.

    Args:
      q, k, v: [b, l, lanes of all heads], l a multiple of the span.
      vector: float32 [groups, heads of a group, ring].
      segments: int32 [b, l]; NO_SEGMENT and 0 are not seen.
    """
    query_spec, key_specs, segment_specs, vector_spec = _specs(q, window, late=0)
    sides = len(key_specs)
    return pl.pallas_call(
        functools.partial(_forward_kernel, window=window),
        grid=(window.heads.groups, q.shape[0], q.shape[1] // window.span),
        in_specs=[vector_spec, query_spec, *key_specs, *key_specs, *segment_specs],
        out_specs=query_spec,
        out_shape=like(q),
        scratch_shapes=[_tile_memory((BLOCK, window.blocks * BLOCK), window)],
        compiler_params=kernel_parameters(_VMEM_BYTES),
        interpret=window.interpret,
        name="window_forward",
    )(vector, q, *[k] * sides, *[v] * sides, *[segments[:, None]] * sides)


def _attend_forward(
    q: Array, k: Array, v: Array, vector: Array, segments: Array, window: Window
) -> tuple[Array, tuple[Array, ...]]:
    return attend(q, k, v, vector, segments, window), (q, k, v, vector, segments)


def _attend_backward(window: Window, saved: tuple[Array, ...], d_out: Array) -> tuple[Any, ...]:
    q, k, v, vector, segments = saved
    query_spec, key_specs, segment_specs, vector_spec = _specs(q, window, late=1)
    sides, span, heads = len(key_specs), window.span, window.heads
    finished = pl.BlockSpec((1, span, heads.lanes), lambda g, b, n: (b, jnp.maximum(n - 1, 0), g))
    tile = _tile_memory((window.blocks * BLOCK, BLOCK), window)
    sums = pltpu.VMEM((2 * span + window.behind * BLOCK, heads.lanes), jnp.float32)
    dq, dk, dv, d_vector = pl.pallas_call(
        functools.partial(_backward_kernel, window=window),
        grid=(heads.groups, q.shape[0], q.shape[1] // span + 1),
        in_specs=[vector_spec, query_spec, *key_specs, *key_specs, *segment_specs, query_spec],
        out_specs=[query_spec, finished, finished, vector_spec],
        out_shape=[like(q), like(k), like(v), like(vector)],
        scratch_shapes=[tile, tile, sums, sums],
        compiler_params=kernel_parameters(_VMEM_BYTES),
        interpret=window.interpret,
        name="window_backward",
    )(vector, q, *[k] * sides, *[v] * sides, *[segments[:, None]] * sides, d_out)
    return dq, dk, dv, d_vector, None


attend.defvjp(_attend_forward, _attend_backward)


def _tile_memory(shape: tuple[int, int], window: Window) -> Any:
    return pltpu.VMEM((window.heads.in_group, *shape), jnp.float32)


def _specs(q: Array, window: Window, late: int) -> tuple[Any, list[Any], list[Any], Any]:
    """Of queries; of keys, and of segments: the blocks before a span, the span, those behind it;
    of the vector. In the `late` steps after the last span the last one stays."""
    span, lanes = window.span, window.heads.lanes
    steps = q.shape[1] // span
    reach = window.before * BLOCK
    in_span = span // reach

    def here(n: Any) -> Any:
        return jnp.minimum(n, steps - 1) if late else n

    # Units of its own length: a span is a whole number of reaches. Beyond the ends of the row lies
    # something that is seen by nobody.
    sides: list[tuple[int, Any]] = [
        (reach, lambda n: jnp.maximum(here(n) * in_span - 1, 0)),
        (span, here),
    ]
    if window.behind:
        sides.append(
            (
                reach,
                lambda n: jnp.minimum((here(n) + 1) * in_span, steps * in_span - 1),
            )
        )
    keys = [
        pl.BlockSpec((1, size, lanes), lambda g, b, n, at=at: (b, at(n), g)) for size, at in sides
    ]
    segments = [
        pl.BlockSpec((1, 1, size), lambda g, b, n, at=at: (b, 0, at(n))) for size, at in sides
    ]
    vector = pl.BlockSpec((1, window.heads.in_group, window.ring), lambda g, b, n: (g, 0, 0))
    return keys[1], keys, segments, vector


def _blocks(refs: Any) -> list[Array]:
    """The blocks of 128 of the keys of a step, in their order."""
    return [
        ref[0, i * BLOCK : (i + 1) * BLOCK] for ref in refs for i in range(ref.shape[1] // BLOCK)
    ]


def _key_segments(refs: Any, step: Any, last: Any) -> list[Array]:
    """Rows [1, 128] of each of these blocks; what is not seen is NO_SEGMENT."""
    rows = [ref[0] for ref in refs]
    rows[0] = jnp.where(step == 0, NO_SEGMENT, rows[0])
    if len(rows) == 3:
        rows[2] = jnp.where(step == last, NO_SEGMENT, rows[2])
    return [
        jnp.where(row[:, at : at + BLOCK] == 0, NO_SEGMENT, row[:, at : at + BLOCK])
        for row in rows
        for at in range(0, row.shape[1], BLOCK)
    ]


def _tile(vector: Array, window: Window) -> Array:
    """[1, ring] to [128, keys of the tile]."""
    ring = jnp.broadcast_to(vector, (BLOCK, window.ring))
    return skewed(ring, 1)[:, : window.blocks * BLOCK]


def _forward_kernel(*refs: Any, window: Window) -> None:
    sides = 3 if window.behind else 2
    vector, q = refs[:2]
    ks, vs, segments = (refs[2 + i * sides : 2 + (i + 1) * sides] for i in range(3))
    out, tile = refs[-2:]
    n, heads = pl.program_id(2), window.heads

    @pl.when((pl.program_id(1) == 0) & (n == 0))
    def _make_tile() -> None:
        for h in range(heads.in_group):
            tile[h] = _tile(vector[0, h : h + 1, :], window)

    keys, values = _blocks(ks), _blocks(vs)
    key_segments = _key_segments(segments, n, pl.num_programs(2) - 1)
    for j in range(window.span // BLOCK):
        here, seen_blocks = slice(j * BLOCK, (j + 1) * BLOCK), slice(j, j + window.blocks)
        key, value = jnp.concatenate(keys[seen_blocks]), jnp.concatenate(values[seen_blocks])
        own = column(segments[1][0][:, here])
        seen = jnp.concatenate([own == other for other in key_segments[seen_blocks]], axis=1)
        attended = []
        for h, query in enumerate(heads_apart(q[0, here], heads)):
            scores = jnp.where(seen, dot(query, key, NT) + tile[h], HIDDEN)
            largest = jnp.maximum(jnp.max(scores, axis=1, keepdims=True), FLOOR)
            weights = jnp.exp(scores - largest)
            total = jnp.maximum(jnp.sum(weights, axis=1, keepdims=True), TINY)
            attended.append(dot(weights.astype(value.dtype), value, NN) * (1.0 / total))
        out[0, here] = heads_together(attended, heads).astype(out.dtype)


def _backward_kernel(*refs: Any, window: Window) -> None:
    sides = 3 if window.behind else 2
    vector, q = refs[:2]
    ks, vs, segments = (refs[2 + i * sides : 2 + (i + 1) * sides] for i in range(3))
    d_out, dq, dk, dv, d_vector, tile, d_tile, k_sums, v_sums = refs[2 + 3 * sides :]
    b, n, last = pl.program_id(1), pl.program_id(2), pl.num_programs(2) - 2
    span, heads = window.span, window.heads

    @pl.when((b == 0) & (n == 0))
    def _make_tile() -> None:
        for h in range(heads.in_group):
            tile[h] = _tile(vector[0, h : h + 1, :], window).T
        d_tile[...] = jnp.zeros_like(d_tile)

    _advance(k_sums, n, span)
    _advance(v_sums, n, span)

    @pl.when(n <= last)
    def _add_span() -> None:
        keys, values = _blocks(ks), _blocks(vs)
        columns = [column(row) for row in _key_segments(segments, n, last)]
        for j in range(span // BLOCK):
            here, seen_blocks = slice(j * BLOCK, (j + 1) * BLOCK), slice(j, j + window.blocks)
            own = segments[1][0][:, here]
            gradients = _block_gradients(
                heads_apart(q[0, here], heads),
                heads_apart(d_out[0, here], heads),
                jnp.concatenate(keys[seen_blocks]),
                jnp.concatenate(values[seen_blocks]),
                jnp.concatenate([other == own for other in columns[seen_blocks]], axis=0),
                tile,
                d_tile if window.biased else None,
                heads,
            )
            dq[0, here] = gradients[0].astype(dq.dtype)
            # The span before lies in front of this one in the sums.
            first = span + (j - window.before) * BLOCK
            there = slice(first, first + window.blocks * BLOCK)
            k_sums[there] += gradients[1]
            v_sums[there] += gradients[2]

    dk[0] = k_sums[:span].astype(dk.dtype)
    dv[0] = v_sums[:span].astype(dv.dtype)

    @pl.when((b == pl.num_programs(1) - 1) & (n == last + 1))
    def _sum_diagonals() -> None:
        for h in range(heads.in_group):
            square = jnp.zeros((BLOCK, BLOCK), jnp.float32)
            ring = jnp.concatenate([d_tile[h].T, square], axis=1)
            d_vector[0, h : h + 1, :] = jnp.sum(skewed(ring, -1), axis=0, keepdims=True)


def _block_gradients(
    queries: list[Array],
    d_outs: list[Array],
    key: Array,
    value: Array,
    seen: Array,
    tile: Any,
    d_tile: Any,
    heads: Heads,
) -> tuple[Array, Array, Array]:
    """What a block of queries gives to the gradients of itself, of its keys and of its values;
    scores are [keys, queries]. Adds to d_tile where there is one."""
    weights, d_scores, dqs = [], [], []
    for h, (query, d_out) in enumerate(zip(queries, d_outs)):
        scores = jnp.where(seen, dot(key, query, NT) + tile[h], HIDDEN)
        largest = jnp.maximum(jnp.max(scores, axis=0, keepdims=True), FLOOR)
        p = jnp.exp(scores - largest)
        p = p * (1.0 / jnp.maximum(jnp.sum(p, axis=0, keepdims=True), TINY))
        dp = dot(value, d_out, NT)
        ds = p * (dp - jnp.sum(p * dp, axis=0, keepdims=True))
        if d_tile is not None:
            d_tile[h] += ds
        weights.append(p.astype(key.dtype))
        d_scores.append(ds.astype(key.dtype))
        dqs.append(dot(d_scores[h], key, TN))
    return (
        heads_together(dqs, heads),
        dot(jnp.concatenate(d_scores, axis=1), jnp.concatenate(queries), NN),
        dot(jnp.concatenate(weights, axis=1), jnp.concatenate(d_outs), NN),
    )


def _advance(sums: Any, step: Any, span: int) -> None:
    """From [the span before, this one, the blocks behind it] to those of the next step."""

    @pl.when(step == 0)
    def _begin() -> None:
        sums[...] = jnp.zeros_like(sums)

    @pl.when(step > 0)
    def _move() -> None:
        rest = sums.shape[0] - 2 * span
        sums[:span] = sums[span : 2 * span]
        if rest:
            sums[span : span + rest] = sums[2 * span :]
        sums[span + rest :] = jnp.zeros_like(sums[span + rest :])
