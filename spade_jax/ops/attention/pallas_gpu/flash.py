"""Fused attention as one differentiable function, of arrays on one device."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from spade_jax.ops.attention.pallas_gpu import backend
from spade_jax.ops.attention.pallas_gpu.bias import (
    LOG2E,
    bias_gradient,
    bias_table,
    offsets_of_tiles,
)
from spade_jax.ops.attention.pallas_gpu.kernels import (
    Inputs,
    Results,
    bias_gradient_kernel,
    forward_kernel,
    key_gradient_kernel,
    query_gradient_kernel,
)
from spade_jax.ops.attention.pallas_gpu.plan import HIDDEN, Plan, Tile, tiles_seen
from spade_jax.ops.attention.shards import DropoutWords
from spade_jax.ops.attention.softmax import LOWEST, named

Segments = tuple[Array | None, Array | None]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def flash_attention(
    plan: Plan,
    query_bqhk: Array,
    key_bjhk: Array,
    value_bjhk: Array,
    bias: Array | None,
    segments: Segments,
    words: DropoutWords | None,
    offset: Array | None,
) -> tuple[Array, Array]:
    """Softmax attention by the plan, never with an array of queries x keys.

    Args:
      query_bqhk: [b, q, h, k]; key_bjhk, value_bjhk: [b, j, h, k]; of one dtype.
      bias: float32 [h, 2 * plan.reach + 1]; None without plan.has_bias.
      segments: of queries, int32 [b, q] (None unless plan.by_query) and of keys, [b, j], or None.
      words: None unless plan.dropout_rate > 0.
      offset: int32 scalar; None if the plan has it.

    Returns:
      [b, q, h, k] in the dtype of the queries, zero where a query sees no key; and the logarithms
      of the sums of exp(score), float32 [b, h, q], there LOWEST.
    """
    return _forward(plan, query_bqhk, key_bjhk, value_bjhk, bias, segments, words, offset)[0]


def _forward(plan: Plan, *arguments: Any) -> tuple[tuple[Array, Array], tuple[Any, ...]]:
    """`flash_attention`, and what its gradient needs: the arguments, the results, and which tiles
    see each other, which is the same in all layers."""
    inputs = _inputs(plan, *arguments)
    query_bqhk = inputs.query
    tile = plan.tiles.forward
    batch, queries, heads, _ = query_bqhk.shape
    results = (
        jax.ShapeDtypeStruct(query_bqhk.shape, query_bqhk.dtype),
        jax.ShapeDtypeStruct((batch, heads, queries), jnp.float32),
    )
    seen_by_query = _seen(inputs, plan.tiles.dq, by_key=False)
    seen_by_key = _seen(inputs, plan.tiles.dkv, by_key=True)
    inputs = inputs._replace(seen=_seen(inputs, tile, by_key=False))
    found = _call(plan, forward_kernel, "attention", tile, tile.queries, (inputs,), results)
    # What a rematerialisation policy keeps by this name is not computed again for the gradient.
    attended, log_sum, *seen = named((*found, seen_by_query, seen_by_key))
    return (attended, log_sum), (*arguments, attended, log_sum, *seen)


def _backward(
    plan: Plan, saved: tuple[Any, ...], gradients: tuple[Array, Array]
) -> tuple[Any, ...]:
    *arguments, attended_bqhk, log_sum_bhq, seen_by_query, seen_by_key = saved
    by_attended, by_log_sum = gradients
    query_bqhk, key_bjhk, value_bjhk, bias, _, _, offset = arguments
    inputs = _inputs(plan, *arguments)
    products = attended_bqhk.astype(jnp.float32) * by_attended.astype(jnp.float32)
    results = Results(
        by_attended,
        jnp.where(log_sum_bhq == LOWEST, jnp.inf, log_sum_bhq * LOG2E),
        jnp.sum(products, axis=3).swapaxes(1, 2) - by_log_sum,
    )

    def like(array: Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(array.shape, array.dtype)

    tile = plan.tiles.dq
    by_query, *edges = _call(
        plan,
        query_gradient_kernel,
        "attention_dq",
        tile,
        tile.queries,
        (inputs._replace(seen=seen_by_query), results),
        (like(query_bqhk), *[like(log_sum_bhq)] * _edges(plan)),
    )
    tile = plan.tiles.dkv
    by_key, by_value = _call(
        plan,
        key_gradient_kernel,
        "attention_dkv",
        tile,
        tile.keys,
        (inputs._replace(seen=seen_by_key), results),
        (like(key_bjhk), like(value_bjhk)),
    )
    by_bias = None
    if plan.has_bias:
        place = plan.offset if plan.offset is not None else offset
        sums = _bias_sums(plan, inputs, results, place)
        totals = tuple(jnp.sum(edge, axis=(0, 2)) for edge in edges)
        by_bias = bias_gradient(plan, sums, totals, place).astype(bias.dtype)
    return by_query, by_key, by_value, by_bias, (None, None), None, None


flash_attention.defvjp(_forward, _backward)


def _inputs(
    plan: Plan,
    query_bqhk: Array,
    key_bjhk: Array,
    value_bjhk: Array,
    bias: Array | None,
    segments: Segments,
    words: DropoutWords | None,
    offset: Array | None,
) -> Inputs:
    query_segments, key_segments = segments
    if key_segments is not None:
        key_segments = jnp.where(key_segments == 0, HIDDEN, key_segments)
    return Inputs(
        query_bqhk,
        key_bjhk,
        value_bjhk,
        table=bias_table(plan, bias, query_bqhk.shape[2]),
        query_segments=query_segments,
        key_segments=key_segments,
        query_words=None if words is None else words.query_bhq,
        key_words=None if words is None else words.key_j,
        offset=None if offset is None else offset.reshape(1),
    )


def _seen(inputs: Inputs, tile: Tile, *, by_key: bool) -> Array | None:
    """What tiles see of each other by segments, for a kernel that goes by queries, or by keys."""
    if inputs.key_segments is None:
        return None
    keys = jnp.where(inputs.key_segments == HIDDEN, 0, inputs.key_segments)
    queries = inputs.query_segments
    if not by_key:
        return tiles_seen(queries, keys, tile.queries, tile.keys, inputs.query.shape[1])
    if queries is None:
        queries = jnp.ones(inputs.query.shape[:2], jnp.int32)
        keys = (keys != 0).astype(jnp.int32)
    return tiles_seen(keys, queries, tile.keys, tile.queries, keys.shape[1])


def _edges(plan: Plan) -> int:
    """On how many sides keys beyond the bias's reach are seen."""
    if not plan.has_bias or plan.window:
        return 0
    return 2 if plan.ahead is None else 1


def _call(
    plan: Plan,
    kernel: Any,
    name: str,
    tile: Tile,
    size: int,
    inputs: tuple[Any, ...],
    outputs: tuple[jax.ShapeDtypeStruct, ...],
) -> list[Array]:
    """Runs a kernel for each tile of so many queries (or keys), head and row."""
    batch, queries, heads, _ = inputs[0].query.shape
    length = inputs[0].key.shape[1] if kernel is key_gradient_kernel else queries

    def block(name: str, array: Any) -> Any:
        """What of an array is of one row and head."""
        by_name = {
            "table": ((None, *array.shape[1:]), lambda i, h, b: (h, 0)),
            "query_segments": ((None, *array.shape[1:]), lambda i, h, b: (b, 0)),
            "key_segments": ((None, *array.shape[1:]), lambda i, h, b: (b, 0)),
            "seen": ((None, *array.shape[1:]), lambda i, h, b: (b, 0, 0)),
        }
        if name in by_name:
            return backend.block(*by_name[name])
        if array.ndim == 4:  # [b, l, h, k]
            shape = (None, array.shape[1], None, array.shape[3])
            return backend.block(shape, lambda i, h, b: (b, 0, h, 0))
        if array.ndim == 3:  # [b, h, l]
            return backend.block((None, None, array.shape[2]), lambda i, h, b: (b, h, 0))
        return backend.block(array.shape, lambda i, h, b: (0,))

    return backend.call(
        functools.partial(kernel, plan=plan),
        name,
        inputs,
        tuple(_of_each(block, arrays) for arrays in inputs),
        outputs,
        tuple(block("", array) for array in outputs),
        grid=(-(-length // size), heads, batch),
        warps=tile.warps,
        stages=tile.stages,
        interpret=plan.interpret,
    )


def _of_each(block: Callable[[str, Any], Any], arrays: Any) -> Any:
    """The blocks of a named tuple of arrays, of which some are None."""
    named = arrays._asdict().items()
    return type(arrays)(*(None if a is None else block(name, a) for name, a in named))


def _bias_sums(plan: Plan, inputs: Inputs, results: Results, offset: Any) -> Array:
    """Gradients of the scores, summed over rows and tiles: [h, differences of tiles, q, j]."""
    batch, queries, heads, _ = inputs.query.shape
    tile = plan.tiles.bias
    _, differences = offsets_of_tiles(plan, offset)
    pairs = batch * -(-queries // tile.queries)
    shares = min(max(1, plan.tiles.bias_programs // (heads * differences)), pairs)

    def block(name: str, array: Any) -> Any:
        """What of an array is of one head."""
        if name == "table":
            return backend.block((None, array.shape[1]), lambda t, s, h: (h, 0))
        if array.ndim == 4:  # [b, l, h, k]
            shape = (batch, array.shape[1], None, array.shape[3])
            return backend.block(shape, lambda t, s, h: (0, 0, h, 0))
        if array.ndim == 3:  # [b, h, l]
            return backend.block((batch, None, array.shape[2]), lambda t, s, h: (0, h, 0))
        return backend.block(array.shape, lambda t, s, h: (0,) * array.ndim)

    shape = (heads, differences, shares, tile.queries, tile.keys)
    (sums,) = backend.call(
        functools.partial(bias_gradient_kernel, plan=plan),
        "attention_dbias",
        (inputs, results),
        (_of_each(block, inputs), _of_each(block, results)),
        (jax.ShapeDtypeStruct(shape, jnp.float32),),
        (backend.block((None, None, None, *shape[3:]), lambda t, s, h: (h, t, s, 0, 0)),),
        grid=(differences, shares, heads),
        warps=tile.warps,
        stages=tile.stages,
        interpret=plan.interpret,
    )
    return jnp.sum(sums, axis=2)
