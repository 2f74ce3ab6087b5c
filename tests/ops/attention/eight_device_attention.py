"""Run by test_window_sharding.py with eight forced CPU devices; prints what it found as JSON."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from spade_jax import partition
from spade_jax.ops.attention.chunk import chunk_attention
from spade_jax.ops.attention.full import full_attention
from spade_jax.ops.attention.window import window_attention
from spade_jax.partition import MESH_AXES

assert jax.device_count() == 8
mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
length, radius = 2100, 15
rng = np.random.default_rng(0)
query, key, value = (rng.normal(size=(4, length, 2, 4)).astype(np.float32) for _ in range(3))
segment_ids = np.repeat(rng.integers(0, 3, (4, length // 100)), 100, axis=1).astype(np.int32)
bias = rng.normal(size=(2, 2 * radius + 1)).astype(np.float32)


def window(query, key, value, segment_ids, bias, dropout_key):
    return window_attention(
        query,
        key,
        value,
        radius=radius,
        causal=False,
        segment_ids=segment_ids,
        bias=bias,
        dropout_rate=0.2,
        dropout_key=dropout_key,
    )


def full(query, key, value, segment_ids, bias, dropout_key):
    return full_attention(
        *(array[:, :100] for array in (query, key, value)),
        causal=True,
        query_segment_ids=segment_ids[:, :100],
        key_segment_ids=segment_ids[:, :100],
        dropout_rate=0.2,
        dropout_key=dropout_key,
    )


def output_and_gradients(attention):
    def total(query, key, value, bias, segment_ids, dropout_key):
        output = attention(query, key, value, segment_ids, bias, dropout_key)
        return jnp.sum(jnp.sin(output)), output

    def run(*arguments):
        (_, output), gradients = jax.value_and_grad(total, (0, 1, 2, 3), has_aux=True)(*arguments)
        return output, *gradients

    return run


arguments = (query, key, value, bias, segment_ids, jax.random.key(0))
batch_and_heads = NamedSharding(mesh, P("data", None, "model"))
inputs = (
    *[batch_and_heads] * 3,
    NamedSharding(mesh, P("model")),
    NamedSharding(mesh, P("data")),
    NamedSharding(mesh, P()),
)
report = {}
for name, attention in (("window", window), ("full", full)):
    function = output_and_gradients(attention)
    outputs = (batch_and_heads, *inputs[:4])
    sharded = jax.jit(function, in_shardings=inputs, out_shardings=outputs)
    compiled = sharded.lower(*arguments).compile()
    collectives = re.findall(
        r" (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(",
        compiled.as_text(),
    )
    results = compiled(*(jax.device_put(a, s) for a, s in zip(arguments, inputs)))
    expected = jax.jit(function)(*arguments)
    report[name] = {
        "collectives": collectives,
        "errors": [
            float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) for a, b in zip(results, expected)
        ],
    }


def on_shards(attention, lengths, *sizes):
    """Attention, dropout included, on a mesh that cuts sequences, against one device.

    lengths: of queries and keys.
    """
    mesh = jax.make_mesh(sizes, MESH_AXES, axis_types=(AxisType.Auto,) * 4)

    def total(query, key, value, bias, query_segments, key_segments):
        output = attention(query, key, value, bias, query_segments, key_segments)
        return jnp.sum(jnp.sin(output)), output

    function = jax.jit(jax.value_and_grad(total, (0, 1, 2, 3), has_aux=True))
    tokens = [query[:, : lengths[0]], key[:, : lengths[1]], value[:, : lengths[1]]]
    reach = 2 * radius + 1 if attention in (*windows, chunks_on_shards) else 2 * lengths[1] - 1
    bias = rng.normal(size=(2, reach)).astype(np.float32)
    arguments = (*tokens, bias, *(segment_ids[:, :length] for length in lengths))
    expected = function(*arguments)
    with jax.set_mesh(mesh):

        def placed(array):
            if array is bias:
                return array
            axes = ("batch", "length", "heads", None)[: array.ndim]
            spec = partition.partition_spec(partition.sharded_axes(axes, array.shape))
            return jax.device_put(array, NamedSharding(mesh, spec))

        placed_arguments = [placed(array) for array in arguments]
        compiled = function.lower(*placed_arguments).compile()
        found = compiled(*placed_arguments)
    program = compiled.as_text()
    moved = re.findall(r"= \w+\[([\d,]+)\]\S* collective-permute(?:-start)?\(", program)
    gathered = re.findall(r"= \w+\[([\d,]*)\]\S* all-(?:gather|to-all)(?:-start)?\(", program)
    return {
        "errors": [
            float(np.max(np.abs(np.asarray(a) - np.asarray(b))))
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected))
        ],
        "gathered": sorted({max(map(int, shape.split(","))) for shape in gathered}),
        # Of [b, l, h, k] and [b, l].
        "tokens_moved": max((int(shape.split(",")[1]) for shape in moved), default=0),
    }


def window_on_shards(causal):
    def attention(query, key, value, bias, segments, _):
        return window_attention(
            query,
            key,
            value,
            radius=radius,
            causal=causal,
            segment_ids=segments,
            bias=bias,
            dropout_rate=0.2,
            dropout_key=jax.random.key(0),
        )

    return attention


def full_on_shards(query, key, value, bias, query_segments, key_segments):
    itself = query.shape == key.shape
    return full_attention(
        query,
        key,
        value,
        causal=itself,
        query_segment_ids=query_segments,
        key_segment_ids=key_segments,
        bias=bias if itself else None,
        dropout_rate=0.2,
        dropout_key=jax.random.key(0),
    )


def chunks_on_shards(query, key, value, bias, *segments):
    return chunk_attention(
        query,
        key,
        value,
        size=radius + 1,
        causal=False,
        bias=bias,
        dropout_rate=0.2,
        dropout_key=jax.random.key(0),
    )


windows = [window_on_shards(causal) for causal in (False, True)]
# Shards that are no whole number of blocks.
report["shards"] = [
    on_shards(windows[0], (2056, 2056), 1, 1, 1, 8),
    on_shards(windows[1], (2056, 2056), 1, 1, 1, 8),
    on_shards(windows[0], (2056, 2056), 1, 2, 2, 2),
]
# Itself, in spans; itself with other axes; cross, both cut, keys alone, queries alone, and neither.
report["full on shards"] = {
    "itself": on_shards(full_on_shards, (1400, 1400), 1, 1, 1, 8),
    "itself on all axes": on_shards(full_on_shards, (120, 120), 1, 2, 2, 2),
    "itself, not cut": on_shards(full_on_shards, (121, 121), 1, 2, 2, 2),
    "cross": on_shards(full_on_shards, (120, 280), 1, 2, 1, 4),
    "cross, keys cut": on_shards(full_on_shards, (121, 280), 1, 2, 1, 4),
    "cross, queries cut": on_shards(full_on_shards, (120, 279), 1, 2, 1, 4),
}
# Two chunks in each shard.
report["chunks"] = on_shards(chunks_on_shards, (128, 128), 1, 2, 1, 4)

# Shards of 15 tokens, of which a window reaches further than that.
report["too short"] = on_shards(windows[1], (120, 120), 1, 1, 1, 8)
print(json.dumps(report))
