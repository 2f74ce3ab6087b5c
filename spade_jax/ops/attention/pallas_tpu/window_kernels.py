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
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from spade_jax.ops.attention.dropout import keeps
from spade_jax.ops.attention.pallas_tpu.heads import BLOCK, from_lanes, to_lanes
from spade_jax.ops.attention.pallas_tpu.tiles import (
    FLOOR,
    HIDDEN,
    NN,
    NO_SEGMENT,
    NT,
    TINY,
    TN,
    column,
    dot,
    heads_apart,
    heads_together,
    kernel_parameters,
    like,
    skewed,
)
from spade_jax.ops.attention.pallas_tpu.window_specs import Specs, Window, inputs, taken
from spade_jax.ops.attention.shards import DropoutWords


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def attend(
    q: Array,
    k: Array,
    v: Array,
    vector: Array,
    segments: Array,
    words: DropoutWords | None,
    window: Window,
) -> Array:
    """Attention, zero where a query sees nothing.

    Args:
      q, k, v: [b, l, features of all heads].
      vector: float32 [groups, heads of a group, ring].
      segments: int32 [b, l]; 0 is not seen.
      words: [b, h, l] and [l].
    """
    specs = Specs(q, window, late=0)
    out = pl.pallas_call(
        functools.partial(_forward_kernel, window=window),
        grid=(window.heads.groups, q.shape[0], specs.steps),
        in_specs=specs.inputs,
        out_specs=specs.query,
        out_shape=specs.filled(q),
        scratch_shapes=[_tile_memory((BLOCK, window.blocks * BLOCK), window)],
        compiler_params=kernel_parameters(),
        interpret=window.interpret,
        name="window_forward",
    )(*inputs(q, k, v, vector, segments, words, specs))
    return from_lanes(out, window.heads, q.shape[1])


def _attend_forward(*arguments: Any) -> tuple[Array, tuple[Any, ...]]:
    return attend(*arguments), arguments[:-1]


def _attend_backward(window: Window, saved: tuple[Any, ...], d_out: Array) -> tuple[Any, ...]:
    q, k, v, vector, segments, words = saved
    specs, span, heads = Specs(q, window, late=1), window.span, window.heads
    finished = pl.BlockSpec((1, span, heads.lanes), lambda g, b, n: (b, jnp.maximum(n - 1, 0), g))
    tile = _tile_memory((window.blocks * BLOCK, BLOCK), window)
    sums = pltpu.VMEM((2 * span + window.behind * BLOCK, heads.lanes), jnp.float32)
    *gradients, d_vector = pl.pallas_call(
        functools.partial(_backward_kernel, window=window),
        grid=(heads.groups, q.shape[0], specs.steps + 1),
        in_specs=[*specs.inputs, specs.query],
        out_specs=[specs.query, finished, finished, specs.vector],
        out_shape=[*map(specs.filled, (q, k, v)), like(vector)],
        scratch_shapes=[tile, tile, sums, sums],
        compiler_params=kernel_parameters(),
        interpret=window.interpret,
        name="window_backward",
    )(
        *inputs(q, k, v, vector, segments, words, specs),
        to_lanes(d_out, heads, specs.length),
    )
    dq, dk, dv = (from_lanes(gradient, heads, q.shape[1]) for gradient in gradients)
    return dq, dk, dv, d_vector, None, None


attend.defvjp(_attend_forward, _attend_backward)


def _tile_memory(shape: tuple[int, int], window: Window) -> Any:
    return pltpu.VMEM((window.heads.in_group, *shape), jnp.float32)


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


def _rows(refs: Any) -> list[Array]:
    """Rows [1, 128] of each of these blocks."""
    return [ref[0][:, at : at + BLOCK] for ref in refs for at in range(0, ref.shape[2], BLOCK)]


def _forward_kernel(*refs: Any, window: Window) -> None:
    given, (out, tile) = taken(refs, window)
    n, heads = pl.program_id(2), window.heads

    @pl.when((pl.program_id(1) == 0) & (n == 0))
    def _make_tile() -> None:
        for h in range(heads.in_group):
            tile[h] = _tile(given.vector[0, h : h + 1, :], window)

    keys, values = _blocks(given.keys), _blocks(given.values)
    key_segments = _key_segments(given.segments, n, pl.num_programs(2) - 1)
    key_words = _rows(given.key_words)
    for j in range(window.span // BLOCK):
        here, reached = slice(j * BLOCK, (j + 1) * BLOCK), slice(j, j + window.blocks)
        key, value = jnp.concatenate(keys[reached]), jnp.concatenate(values[reached])
        own = column(given.segments[1][0][:, here])
        seen = jnp.concatenate([own == other for other in key_segments[reached]], axis=1)
        attended = []
        for h, query in enumerate(heads_apart(given.q[0, here], heads)):
            scores = jnp.where(seen, dot(query, key, NT) + tile[h], HIDDEN)
            largest = jnp.maximum(jnp.max(scores, axis=1, keepdims=True), FLOOR)
            weights = jnp.exp(scores - largest)
            total = jnp.maximum(jnp.sum(weights, axis=1, keepdims=True), TINY)
            if window.dropout_rate > 0:
                words = column(given.query_words[0, 0, h : h + 1, here])
                keep = [keeps(words, row, window.dropout_rate) for row in key_words[reached]]
                weights = jnp.where(jnp.concatenate(keep, axis=1), weights, 0.0)
                total = total * (1.0 - window.dropout_rate)
            attended.append(dot(weights.astype(value.dtype), value, NN) * (1.0 / total))
        out[0, here] = heads_together(attended, heads).astype(out.dtype)


def _backward_kernel(*refs: Any, window: Window) -> None:
    given, rest = taken(refs, window)
    d_out, dq, dk, dv, d_vector, tile, d_tile, k_sums, v_sums = rest
    b, n, last = pl.program_id(1), pl.program_id(2), pl.num_programs(2) - 2
    span, heads = window.span, window.heads

    @pl.when((b == 0) & (n == 0))
    def _make_tile() -> None:
        for h in range(heads.in_group):
            tile[h] = _tile(given.vector[0, h : h + 1, :], window).T
        d_tile[...] = jnp.zeros_like(d_tile)

    _advance(k_sums, n, span)
    _advance(v_sums, n, span)

    @pl.when(n <= last)
    def _add_span() -> None:
        keys, values = _blocks(given.keys), _blocks(given.values)
        columns = [column(row) for row in _key_segments(given.segments, n, last)]
        key_words = [column(row) for row in _rows(given.key_words)]
        for j in range(span // BLOCK):
            here, reached = slice(j * BLOCK, (j + 1) * BLOCK), slice(j, j + window.blocks)
            own = given.segments[1][0][:, here]

            def kept(h: int, here: slice = here, reached: slice = reached) -> Array:
                words = given.query_words[0, 0, h : h + 1, here]
                rows = [keeps(words, other, window.dropout_rate) for other in key_words[reached]]
                return jnp.concatenate(rows, axis=0)

            gradients = _block_gradients(
                heads_apart(given.q[0, here], heads),
                heads_apart(d_out[0, here], heads),
                jnp.concatenate(keys[reached]),
                jnp.concatenate(values[reached]),
                jnp.concatenate([other == own for other in columns[reached]], axis=0),
                tile,
                d_tile if window.biased else None,
                kept,
                window,
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
    kept: Callable[[int], Array],
    window: Window,
) -> tuple[Array, Array, Array]:
    """What a block of queries gives to the gradients of itself, of its keys and of its values;
    scores are [keys, queries]. Adds to d_tile where there is one; `kept` is of a head's dropout."""
    weights, d_scores, dqs = [], [], []
    for h, (query, d_out) in enumerate(zip(queries, d_outs)):
        scores = jnp.where(seen, dot(key, query, NT) + tile[h], HIDDEN)
        largest = jnp.maximum(jnp.max(scores, axis=0, keepdims=True), FLOOR)
        p = jnp.exp(scores - largest)
        p = p * (1.0 / jnp.maximum(jnp.sum(p, axis=0, keepdims=True), TINY))
        weight, dp = p, dot(value, d_out, NT)
        if window.dropout_rate > 0:
            factor = jnp.where(kept(h), 1.0 / (1.0 - window.dropout_rate), 0.0)
            weight, dp = p * factor, dp * factor
        ds = p * (dp - jnp.sum(p * dp, axis=0, keepdims=True))
        if d_tile is not None:
            d_tile[h] += ds
        weights.append(weight.astype(key.dtype))
        d_scores.append(ds.astype(key.dtype))
        dqs.append(dot(d_scores[h], key, TN))
    return (
        heads_together(dqs, window.heads),
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
