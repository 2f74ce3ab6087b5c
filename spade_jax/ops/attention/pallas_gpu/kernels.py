"""The arithmetic of fused attention (arXiv 2205.14135): forward, and the gradients.

Scores are float32, in base 2. A program has some queries (or keys) of a head and goes through the
tiles of keys (or queries) with which they meet.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from spade_jax.ops.attention.dropout import keeps
from spade_jax.ops.attention.pallas_gpu import backend
from spade_jax.ops.attention.pallas_gpu.bias import (
    LOG2E,
    beyond_reach,
    look_up,
    offsets_of_tiles,
)
from spade_jax.ops.attention.pallas_gpu.plan import (
    HIDDEN,
    Bounds,
    Plan,
    Seen,
    key_tiles,
    query_tiles,
)
from spade_jax.ops.attention.softmax import LOWEST

# The least maximum of a row's scores, so that rows that see nothing give zeros, not NaN.
FLOOR = -1e20


class Inputs(NamedTuple):
    """What all kernels read, arrays or references to a program's part of them.

    Attributes:
      query: [b, q, h, k]; key, value: [b, j, h, k].
      table: of `bias_table`, [h, n].
      query_segments, key_segments: int32 [b, q] and [b, j]; hidden keys are HIDDEN.
      seen: of `tiles_seen`.
      query_words, key_words: of `DropoutWords`.
      offset: int32 [1], see `Plan`.
    """

    query: Any
    key: Any
    value: Any
    table: Any = None
    query_segments: Any = None
    key_segments: Any = None
    seen: Any = None
    query_words: Any = None
    key_words: Any = None
    offset: Any = None


class Results(NamedTuple):
    """What the backward pass knows of the forward pass, by query.

    Attributes:
      gradient: of what was attended, [b, q, h, k].
      log_sum: in base 2, [b, h, q]; inf where a query sees no key.
      mean: the products of gradient and result, less the gradient of the log-sum, [b, h, q].
    """

    gradient: Any
    log_sum: Any
    mean: Any


class Side(NamedTuple):
    """Of the queries or keys of a tile: where they lie, their segments and words for dropout."""

    place: Array
    segments: Array | None
    words: Array | None


def _queries(
    inputs: Inputs, first: Any, count: int, *, masked: bool, whole: bool = False, row: Any = None
) -> Side:
    """masked: segments are looked at. whole: all of them are there. row: of references to all of
    the batch."""
    segments, words = (
        None if ref is None else backend.load(ref, first, count, row=row, whole=whole)
        for ref in (inputs.query_segments if masked else None, inputs.query_words)
    )
    return Side(first + jnp.arange(count, dtype=jnp.int32), segments, words)


def _keys(
    inputs: Inputs,
    offset: Any,
    first: Any,
    count: int,
    *,
    masked: bool,
    whole: bool = False,
    row: Any = None,
) -> Side:
    """As `_queries`."""
    there = first + jnp.arange(count, dtype=jnp.int32)
    segments, length = None, _length(inputs.key)
    if masked and inputs.key_segments is not None:
        segments = backend.load(inputs.key_segments, first, count, beyond=HIDDEN, row=row)
    elif masked and length % count != 0:
        segments = jnp.where(there < length, 1, HIDDEN)
    words = None
    if inputs.key_words is not None:
        words = backend.load(inputs.key_words, first, count, whole=whole)
    return Side(there + offset, segments, words)


def _length(ref: Any) -> int:
    """Of what is [..., length, k]."""
    return ref.shape[-2]


def _offset(plan: Plan, inputs: Inputs) -> Any:
    return inputs.offset[0] if plan.offset is None else plan.offset


def _seen(inputs: Inputs, tile: Any) -> Seen | None:
    return None if inputs.seen is None else Seen(*(inputs.seen[tile, i] for i in range(4)))


def _bias(
    plan: Plan, table: Any, queries: Side, keys: Side, part: str, by_key: bool
) -> Array | None:
    """Of a tile, [queries, keys], or [keys, queries] if `by_key`, or one number for all of it; None
    if there is none."""
    if part == "near":
        lines, along = (keys, queries) if by_key else (queries, keys)
        return look_up(plan, table, lines.place, along.place, by_key)
    return beyond_reach(plan, table, ahead=part == "ahead") if plan.has_bias else None


def _probabilities(
    plan: Plan, products: Array, bias: Array | None, log_sum: Array, by_key: bool
) -> Array:
    """Of products of queries and keys, given the logarithms of the sums of each query's."""
    less = -_by_tile(log_sum, 0, by_key)
    less = less if bias is None else bias + less
    scores = backend.scaled_plus(products, less, scale=LOG2E, interpret=plan.interpret)
    return backend.exp2(scores, interpret=plan.interpret)


def _masked(plan: Plan, products: Array, queries: Side, keys: Side, by_key: bool) -> Array:
    """Products within one segment; -inf between others."""
    if keys.segments is None:
        return products
    if plan.by_query:
        visible = _by_tile(queries.segments, 0, by_key) == _by_tile(keys.segments, 1, by_key)
    else:
        visible = _by_tile(keys.segments != HIDDEN, 1, by_key)
    return jnp.where(visible, products, -jnp.inf)


def _by_tile(vector: Array | None, axis: int, by_key: bool) -> Array:
    """Of queries (axis 0) or keys (axis 1), as a line or column of a tile."""
    assert vector is not None
    return vector[None, :] if (axis == 1) != by_key else vector[:, None]


def _kept(plan: Plan, queries: Side, keys: Side, by_key: bool = False) -> Array:
    words = _by_tile(queries.words, 0, by_key), _by_tile(keys.words, 1, by_key)
    return keeps(*words, plan.dropout_rate)


def _through(
    plan: Plan,
    bounds: Bounds,
    clear: tuple[Any, Any] | None,
    body: Callable[..., Any],
    start: Any,
    by_key: bool,
) -> Any:
    """body(tile, carry, part, masked) over the tiles: those beyond the bias's reach, those within
    ("near"), and those beyond it on the other side ("behind", "ahead").

    Tiles from the first to the second of `clear` need no masks (None: no tile does); of each part
    they come before the others.
    """

    def through(first: Any, end: Any, carry: Any, part: str) -> Any:
        if clear is None:
            return lax.fori_loop(first, end, lambda i, carry: body(i, carry, part, False), carry)
        here, there = (jnp.clip(limit, first, end) for limit in clear)
        there = jnp.maximum(here, there)
        before = here - first
        carry = lax.fori_loop(here, there, lambda i, carry: body(i, carry, part, False), carry)

        def masked(i: Any, carry: Any) -> Any:
            return body(jnp.where(i < before, first + i, there - before + i), carry, part, True)

        return lax.fori_loop(0, before + end - there, masked, carry)

    if plan.reach is None:
        return through(bounds.first, bounds.end, start, "all")
    # Of keys those behind come first; of queries, those that have the key ahead.
    before, after = ("ahead", "behind") if by_key else ("behind", "ahead")
    limits = {"behind": plan.behind, "ahead": plan.ahead}
    carry = start
    if limits[before] is None:
        carry = through(bounds.first, bounds.near, carry, before)
    carry = through(bounds.near, bounds.near_end, carry, "near")
    if limits[after] is None:
        carry = through(bounds.near_end, bounds.end, carry, after)
    return carry


def _clear(seen: Seen | None, length: int, count: int) -> tuple[Any, Any] | None:
    """The tiles of so many keys (or queries) that are all there, and of which nothing is hidden;
    None: all are."""
    if seen is not None:
        return seen.clear, seen.clear_end
    whole, rest = divmod(length, count)
    return None if rest == 0 else (0, whole)


def _tile_of_queries(plan: Plan) -> Any:
    """Which one a program has: if causal the last first, for it meets the most keys."""
    causal = plan.ahead is not None and not plan.window
    tile = backend.program_id(0)
    return backend.num_programs(0) - 1 - tile if causal else tile


def forward_kernel(inputs: Inputs, attended: Any, log_sum: Any, *, plan: Plan) -> None:
    """Writes [q, k], and the logarithms of the sums, LOWEST where a query sees no key, [q]."""
    tile, offset = plan.tiles.forward, _offset(plan, inputs)
    own = _tile_of_queries(plan)
    first = own * tile.queries
    query = backend.load(inputs.query, first, tile.queries)
    scaled_plus = functools.partial(backend.scaled_plus, scale=LOG2E, interpret=plan.interpret)
    exp2 = functools.partial(backend.exp2, interpret=plan.interpret)

    def body(
        i: Any, carry: tuple[Array, Array, Array], part: str, masked: bool
    ) -> tuple[Array, Array, Array]:
        total, largest, weight = carry
        there, whole = i * tile.keys, not masked
        key = backend.load(inputs.key, there, tile.keys, whole=whole)
        queries = _queries(inputs, first, tile.queries, masked=masked)
        keys = _keys(inputs, offset, there, tile.keys, masked=masked, whole=whole)
        products = backend.dot(query, key, transposed=True)
        products = _masked(plan, products, queries, keys, False)
        bias: Any = _bias(plan, inputs.table, queries, keys, part, False)
        if part == "near":
            scores = scaled_plus(products, bias)
            new = jnp.maximum(largest, jnp.max(scores, axis=1))
            weights = exp2(scores - new[:, None])
        else:
            bias = 0.0 if bias is None else bias
            new = jnp.maximum(largest, jnp.max(products, axis=1) * LOG2E + bias)
            weights = exp2(scaled_plus(products, (bias - new)[:, None]))
        correction = exp2(largest - new)
        weight = weight * correction + jnp.sum(weights, axis=1)
        if plan.dropout_rate > 0:
            weights = jnp.where(_kept(plan, queries, keys), weights, 0.0)
        value = backend.load(inputs.value, there, tile.keys, whole=whole)
        found = backend.dot(weights.astype(value.dtype), value)
        return total * correction[:, None] + found, new, weight

    start = (
        jnp.zeros(query.shape, jnp.float32),
        jnp.full((tile.queries,), FLOOR, jnp.float32),
        jnp.zeros((tile.queries,), jnp.float32),
    )
    seen = _seen(inputs, own)
    bounds = key_tiles(plan, offset, first, tile, _length(inputs.key), seen)
    clear = _clear(seen, _length(inputs.key), tile.keys)
    total, largest, weight = _through(plan, bounds, clear, body, start, False)
    some = weight > 0
    weight = jnp.where(some, weight, 1.0)
    scale = 1.0 / (weight * (1.0 - plan.dropout_rate))
    backend.store(attended, first, (total * scale[:, None]).astype(attended.dtype))
    backend.store(log_sum, first, jnp.where(some, largest / LOG2E + jnp.log(weight), LOWEST))


def _score_gradient(
    plan: Plan, probabilities: Array, by_value: Array, mean: Array, kept: Array | None
) -> Array:
    """Of the scores, given that of the probabilities after dropout."""
    if kept is not None:
        by_value = jnp.where(kept, by_value * (1.0 / (1.0 - plan.dropout_rate)), 0.0)
    return probabilities * (by_value - mean)


def query_gradient_kernel(
    inputs: Inputs, results: Results, gradient: Any, *edges: Any, plan: Plan
) -> None:
    """Writes the gradient of the queries [q, k], and for the bias the sums of those of the scores
    of keys beyond its reach, [q]: behind, and unless causal ahead."""
    tile, offset = plan.tiles.dq, _offset(plan, inputs)
    own = _tile_of_queries(plan)
    first = own * tile.queries
    query = backend.load(inputs.query, first, tile.queries)
    by_output = backend.load(results.gradient, first, tile.queries)
    log_sum = backend.load(results.log_sum, first, tile.queries, beyond=jnp.inf)
    mean = backend.load(results.mean, first, tile.queries)

    def body(i: Any, carry: tuple[Array, ...], part: str, masked: bool) -> tuple[Array, ...]:
        total, *sums = carry
        there, whole = i * tile.keys, not masked
        key = backend.load(inputs.key, there, tile.keys, whole=whole)
        value = backend.load(inputs.value, there, tile.keys, whole=whole)
        queries = _queries(inputs, first, tile.queries, masked=masked)
        keys = _keys(inputs, offset, there, tile.keys, masked=masked, whole=whole)
        products = backend.dot(query, key, transposed=True)
        products = _masked(plan, products, queries, keys, False)
        bias = _bias(plan, inputs.table, queries, keys, part, False)
        probabilities = _probabilities(plan, products, bias, log_sum, False)
        by_value = backend.dot(by_output, value, transposed=True)
        kept = _kept(plan, queries, keys) if plan.dropout_rate > 0 else None
        by_score = _score_gradient(plan, probabilities, by_value, mean[:, None], kept)
        for side, name in enumerate(("behind", "ahead")[: len(sums)]):
            if part == name:
                sums[side] = sums[side] + jnp.sum(by_score, axis=1)
            elif part == "near":
                assert plan.reach is not None
                distance = keys.place[None, :] - queries.place[:, None]
                beyond = (distance >= plan.reach) if side else (distance <= -plan.reach)
                sums[side] = sums[side] + jnp.sum(jnp.where(beyond, by_score, 0.0), axis=1)
        return total + backend.dot(by_score.astype(key.dtype), key), *sums

    start = (
        jnp.zeros(query.shape, jnp.float32),
        *(jnp.zeros((tile.queries,), jnp.float32) for _ in edges),
    )
    seen = _seen(inputs, own)
    bounds = key_tiles(plan, offset, first, tile, _length(inputs.key), seen)
    clear = _clear(seen, _length(inputs.key), tile.keys)
    total, *sums = _through(plan, bounds, clear, body, start, False)
    backend.store(gradient, first, total.astype(gradient.dtype))
    for edge, found in zip(edges, sums):
        backend.store(edge, first, found)


def key_gradient_kernel(
    inputs: Inputs, results: Results, key_gradient: Any, value_gradient: Any, *, plan: Plan
) -> None:
    """Writes the gradients of the keys and values, [j, k] each."""
    tile, offset = plan.tiles.dkv, _offset(plan, inputs)
    own = backend.program_id(0)
    first = own * tile.keys
    key = backend.load(inputs.key, first, tile.keys)
    value = backend.load(inputs.value, first, tile.keys)

    def body(i: Any, carry: tuple[Array, Array], part: str, masked: bool) -> tuple[Array, Array]:
        by_key, by_value = carry
        there, whole = i * tile.queries, not masked
        query = backend.load(inputs.query, there, tile.queries, whole=whole)
        by_output = backend.load(results.gradient, there, tile.queries, whole=whole)
        log_sum = backend.load(results.log_sum, there, tile.queries, beyond=jnp.inf, whole=whole)
        mean = backend.load(results.mean, there, tile.queries, whole=whole)
        queries = _queries(inputs, there, tile.queries, masked=masked, whole=whole)
        keys = _keys(inputs, offset, first, tile.keys, masked=masked)
        products = backend.dot(key, query, transposed=True)
        products = _masked(plan, products, queries, keys, True)
        bias = _bias(plan, inputs.table, queries, keys, part, True)
        probabilities = _probabilities(plan, products, bias, log_sum, True)
        kept, after_dropout = None, probabilities
        if plan.dropout_rate > 0:
            kept = _kept(plan, queries, keys, True)
            after_dropout = jnp.where(kept, probabilities * (1.0 / (1.0 - plan.dropout_rate)), 0.0)
        by_value = by_value + backend.dot(after_dropout.astype(by_output.dtype), by_output)
        products = backend.dot(value, by_output, transposed=True)
        by_score = _score_gradient(plan, probabilities, products, mean[None, :], kept)
        return by_key + backend.dot(by_score.astype(query.dtype), query), by_value

    start = jnp.zeros(key.shape, jnp.float32)
    seen = _seen(inputs, own)
    bounds = query_tiles(plan, offset, first, tile, _length(inputs.query), seen)
    clear = _clear(seen, _length(inputs.query), tile.queries)
    by_key, by_value = _through(plan, bounds, clear, body, (start, start), True)
    backend.store(key_gradient, first, by_key.astype(key_gradient.dtype))
    backend.store(value_gradient, first, by_value.astype(value_gradient.dtype))


def bias_gradient_kernel(inputs: Inputs, results: Results, sums: Any, *, plan: Plan) -> None:
    """Writes the gradients of the scores of one head, summed over the tiles whose numbers differ by
    as much, of a share of the queries of all rows: [queries, keys] of a tile.

    It computes scores anew, for the other kernels meet tiles in another order, and sums in
    registers, so that each run gives the same bits.
    """
    size, offset = plan.tiles.bias.queries, _offset(plan, inputs)
    query_count, key_count = (-(-_length(ref) // size) for ref in (inputs.query, inputs.key))
    difference = backend.program_id(0) + offsets_of_tiles(plan, offset)[0]
    place = jnp.arange(size, dtype=jnp.int32)
    # The same for all of these tiles.
    bias = look_up(plan, inputs.table, place, place + difference * size + offset, False)

    def body(pair: Any, total: Array) -> Array:
        row = lax.div(pair, query_count)
        i = pair - row * query_count
        j = jnp.clip(i + difference, 0, key_count - 1)
        here, there = i * size, j * size
        query = backend.load(inputs.query, here, size, row=row)
        key = backend.load(inputs.key, there, size, row=row)
        value = backend.load(inputs.value, there, size, row=row)
        by_output = backend.load(results.gradient, here, size, row=row)
        log_sum = backend.load(results.log_sum, here, size, beyond=jnp.inf, row=row)
        mean = backend.load(results.mean, here, size, row=row)
        queries = _queries(inputs, here, size, masked=True, row=row)
        keys = _keys(inputs, offset, there, size, masked=True, row=row)
        # There is no such tile of keys.
        log_sum = jnp.where(j == i + difference, log_sum, jnp.inf)
        products = backend.dot(query, key, transposed=True)
        products = _masked(plan, products, queries, keys, False)
        probabilities = _probabilities(plan, products, bias, log_sum, False)
        by_value = backend.dot(by_output, value, transposed=True)
        kept = _kept(plan, queries, keys) if plan.dropout_rate > 0 else None
        return total + _score_gradient(plan, probabilities, by_value, mean[:, None], kept)

    share, shares = backend.program_id(1), backend.num_programs(1)
    pairs = inputs.query.shape[0] * query_count
    first, end = lax.div(pairs * share, shares), lax.div(pairs * (share + 1), shares)
    sums[...] = lax.fori_loop(first, end, body, jnp.zeros((size, size), jnp.float32))
