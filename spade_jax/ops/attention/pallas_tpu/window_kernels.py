"""Window attention as two TPU kernels: forward, and all of its gradients.

A block of 128 queries sees its own block of keys and those that its window reaches, which are one
tile of scores: softmax needs no running maximum, and the backward pass keeps nothing of the forward
one. A step of the grid has a span of such blocks, of one group of heads and one row; spans follow
one another, so that the gradients of keys are finished one step after the last query that sees
them, and the bias's is summed up on the way.

What a query adds to a key's score depends on how far they lie apart: bias, and HIDDEN beyond the
window, are one tile for each head, made from a vector once for all rows and spans.

Scores are [keys, queries], and made a block ahead, as `full_kernels` says.
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
    column,
    dot,
    heads_apart,
    kernel_parameters,
    like,
    skewed,
    turned,
)
from spade_jax.ops.attention.pallas_tpu.window_specs import Refs, Specs, Window, inputs, taken
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
        # The tile, and scores of the block at hand and of the next one.
        scratch_shapes=[_tile_memory(window)] * 3,
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
    sums = pltpu.VMEM((heads.lanes, 2 * span + window.behind * BLOCK), jnp.float32)
    *gradients, d_vector = pl.pallas_call(
        functools.partial(_backward_kernel, window=window),
        grid=(heads.groups, q.shape[0], specs.steps + 1),
        in_specs=[*specs.inputs, specs.query],
        out_specs=[specs.query, finished, finished, specs.vector],
        out_shape=[*map(specs.filled, (q, k, v)), like(vector)],
        # The tile, its gradient, and of two blocks scores and gradients of weights.
        scratch_shapes=[*[_tile_memory(window)] * 6, sums, sums],
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


def _tile_memory(window: Window) -> Any:
    return pltpu.VMEM((window.heads.in_group, window.blocks * BLOCK, BLOCK), jnp.float32)


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
    """[1, ring] to [keys of the tile, 128]."""
    ring = jnp.broadcast_to(vector, (BLOCK, window.ring))
    return skewed(ring, 1)[:, : window.blocks * BLOCK].T


def _rows(refs: Any) -> list[Array]:
    """Rows [1, 128] of each of these blocks."""
    return [ref[0][:, at : at + BLOCK] for ref in refs for at in range(0, ref.shape[2], BLOCK)]


class _Span:
    """What a step knows of its span: j counts its blocks of queries."""

    def __init__(self, given: Refs, tile: Any, step: Any, last: Any, window: Window):
        self.given, self.tile, self.window = given, tile, window
        self.keys = _blocks(given.keys)
        self._segments = [column(row) for row in _key_segments(given.segments, step, last)]
        self._words = [column(row) for row in _rows(given.key_words)]

    def __len__(self) -> int:
        return self.window.span // BLOCK

    def here(self, j: int) -> slice:
        """Its queries."""
        return slice(j * BLOCK, (j + 1) * BLOCK)

    def reached(self, j: int) -> slice:
        """The blocks of keys that these see."""
        return slice(j, j + self.window.blocks)

    def score(self, j: int, slot: Any) -> list[Array]:
        """Leaves the scores of each head in the memory `slot`; their largest, [1, 128]."""
        own = self.given.segments[1][0][:, self.here(j)]
        key = jnp.concatenate(self.keys[self.reached(j)])
        seen = jnp.concatenate([other == own for other in self._segments[self.reached(j)]])
        largest = []
        for h, query in enumerate(heads_apart(self.given.q[0, self.here(j)], self.window.heads)):
            scores = jnp.where(seen, dot(key, query, NT) + self.tile[h], HIDDEN)
            slot[h] = scores
            largest.append(jnp.maximum(jnp.max(scores, axis=0, keepdims=True), FLOOR))
        return largest

    def kept(self, j: int, h: int) -> Array:
        """What dropout keeps of a head's weights."""
        words = self.given.query_words[0, 0, h : h + 1, self.here(j)]
        others = self._words[self.reached(j)]
        return jnp.concatenate([keeps(words, other, self.window.dropout_rate) for other in others])


def _ahead(count: int, begin: Callable[[int], Any], end: Callable[[int, Any], None]) -> None:
    """`end(j, begun)` of each, `begun` being what `begin(j)` gave, which begins the next one
    first."""
    begun = begin(0)
    for j in range(count):
        following = begin(j + 1) if j + 1 < count else None
        end(j, begun)
        begun = following


def _forward_kernel(*refs: Any, window: Window) -> None:
    given, (out, tile, *slots) = taken(refs, window)
    n, heads = pl.program_id(2), window.heads

    @pl.when((pl.program_id(1) == 0) & (n == 0))
    def _make_tile() -> None:
        for h in range(heads.in_group):
            tile[h] = _tile(given.vector[0, h : h + 1, :], window)

    span = _Span(given, tile, n, pl.num_programs(2) - 1, window)
    values = [turned(value) for value in _blocks(given.values)]

    def attend_to(j: int, largest: list[Array]) -> None:
        value = jnp.concatenate(values[span.reached(j)], axis=1)
        attended = []
        for h in range(heads.in_group):
            weights = jnp.exp(slots[j % 2][h] - largest[h])
            total = jnp.maximum(jnp.sum(weights, axis=0, keepdims=True), TINY)
            if window.dropout_rate > 0:
                weights = jnp.where(span.kept(j, h), weights, 0.0)
                total = total * (1.0 - window.dropout_rate)
            own = value[h * heads.size : (h + 1) * heads.size]
            attended.append(dot(own, weights.astype(value.dtype), NN) * (1.0 / total))
        out[0, span.here(j)] = jnp.concatenate(attended).T.astype(out.dtype)

    _ahead(len(span), lambda j: span.score(j, slots[j % 2]), attend_to)


def _backward_kernel(*refs: Any, window: Window) -> None:
    given, rest = taken(refs, window)
    d_out, dq, dk, dv, d_vector, tile, d_tile, *slots, k_sums, v_sums = rest
    b, n, last = pl.program_id(1), pl.program_id(2), pl.num_programs(2) - 2
    length, heads = window.span, window.heads

    @pl.when((b == 0) & (n == 0))
    def _make_tile() -> None:
        for h in range(heads.in_group):
            tile[h] = _tile(given.vector[0, h : h + 1, :], window)
        d_tile[...] = jnp.zeros_like(d_tile)

    _advance(k_sums, n, length)
    _advance(v_sums, n, length)

    @pl.when(n <= last)
    def _add_span() -> None:
        span = _Span(given, tile, n, last, window)
        values = _blocks(given.values)
        turned_keys = [turned(key) for key in span.keys]

        def score(j: int) -> list[Array]:
            value = jnp.concatenate(values[span.reached(j)])
            for h, of_head in enumerate(heads_apart(d_out[0, span.here(j)], heads)):
                slots[2 + j % 2][h] = dot(value, of_head, NT)
            return span.score(j, slots[j % 2])

        def add(j: int, largest: list[Array]) -> None:
            query, d_attended = turned(given.q[0, span.here(j)]), turned(d_out[0, span.here(j)])
            key = jnp.concatenate(turned_keys[span.reached(j)], axis=1)
            # The span before lies in front of this one in the sums.
            first = length + (j - window.before) * BLOCK
            there = slice(first, first + window.blocks * BLOCK)
            dqs = []
            for h in range(heads.in_group):
                p = jnp.exp(slots[j % 2][h] - largest[h])
                p = p * (1.0 / jnp.maximum(jnp.sum(p, axis=0, keepdims=True), TINY))
                weight, dp = p, slots[2 + j % 2][h]
                if window.dropout_rate > 0:
                    factor = jnp.where(span.kept(j, h), 1.0 / (1.0 - window.dropout_rate), 0.0)
                    weight, dp = p * factor, dp * factor
                ds = p * (dp - jnp.sum(p * dp, axis=0, keepdims=True))
                if window.biased:
                    d_tile[h] += ds
                weight, ds = weight.astype(key.dtype), ds.astype(key.dtype)
                own = slice(h * heads.size, (h + 1) * heads.size)
                k_sums[own, there] += dot(query[own], ds, NT)
                v_sums[own, there] += dot(d_attended[own], weight, NT)
                dqs.append(dot(key[own], ds, NN))
            dq[0, span.here(j)] = jnp.concatenate(dqs).T.astype(dq.dtype)

        _ahead(len(span), score, add)

    dk[0] = k_sums[:, :length].T.astype(dk.dtype)
    dv[0] = v_sums[:, :length].T.astype(dv.dtype)

    @pl.when((b == pl.num_programs(1) - 1) & (n == last + 1))
    def _sum_diagonals() -> None:
        for h in range(heads.in_group):
            square = jnp.zeros((BLOCK, BLOCK), jnp.float32)
            ring = jnp.concatenate([d_tile[h].T, square], axis=1)
            d_vector[0, h : h + 1, :] = jnp.sum(skewed(ring, -1), axis=0, keepdims=True)


def _advance(sums: Any, step: Any, span: int) -> None:
    """From [the span before, this one, the blocks behind it] to those of the next step."""

    @pl.when(step == 0)
    def _begin() -> None:
        sums[...] = jnp.zeros_like(sums)

    @pl.when(step > 0)
    def _move() -> None:
        rest = sums.shape[1] - 2 * span
        sums[:, :span] = sums[:, span : 2 * span]
        if rest:
            sums[:, span : span + rest] = sums[:, 2 * span :]
        sums[:, span + rest :] = jnp.zeros_like(sums[:, span + rest :])
