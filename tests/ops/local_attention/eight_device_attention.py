"""Run by test_window_sharding.py with eight forced CPU devices; prints what it found as JSON."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from spade_jax.config import ConfigError
from spade_jax.ops.full_attention import full_attention
from spade_jax.ops.local_attention.window import window_attention, window_relative_positions
from spade_jax.partition import MESH_AXES

assert jax.device_count() == 8
mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
length, radius = 2100, 15
rng = np.random.default_rng(0)
query, key, value = (rng.normal(size=(4, length, 2, 4)).astype(np.float32) for _ in range(3))
segment_ids = np.repeat(rng.integers(0, 3, (4, length // 100)), 100, axis=1).astype(np.int32)
bias = rng.normal(size=(2, *window_relative_positions(radius, False).shape)).astype(np.float32)


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


def on_shards(causal, *sizes):
    """Window attention with the sequence in shards that are no whole number of blocks."""
    whole = 2056
    mesh = jax.make_mesh(sizes, MESH_AXES, axis_types=(AxisType.Auto,) * 4)

    # Shards do not begin where blocks of the whole do: the bias is one of relative positions.
    relative = window_relative_positions(radius, causal)
    table = rng.normal(size=(2, 100)).astype(np.float32)

    def total(query, key, value, table, segment_ids):
        output = window_attention(
            query,
            key,
            value,
            radius=radius,
            causal=causal,
            segment_ids=segment_ids,
            bias=table[:, relative + 50],
        )
        return jnp.sum(jnp.sin(output)), output

    function = jax.jit(jax.value_and_grad(total, (0, 1, 2, 3), has_aux=True))
    tokens = [array[:, :whole] for array in (query, key, value)]
    arguments = (*tokens, table, segment_ids[:, :whole])
    expected = function(*arguments)
    heads = NamedSharding(mesh, P(("data", "fsdp"), "sequence", "tensor"))
    rows = NamedSharding(mesh, P(("data", "fsdp"), "sequence"))
    with jax.set_mesh(mesh):
        placed = [jax.device_put(array, heads) for array in tokens]
        compiled = function.lower(
            *placed, arguments[3], jax.device_put(arguments[4], rows)
        ).compile()
        found = compiled(*placed, arguments[3], jax.device_put(arguments[4], rows))
    moved = re.findall(r"= \w+\[([\d,]+)\]\S* collective-permute(?:-start)?\(", compiled.as_text())
    return {
        "errors": [
            float(np.max(np.abs(np.asarray(a) - np.asarray(b))))
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected))
        ],
        "gathers": len(re.findall(r" all-(?:gather|to-all)(?:-start)?\(", compiled.as_text())),
        "tokens_moved": max(max(map(int, shape.split(",")[2:])) for shape in moved),
    }


report["shards"] = [
    on_shards(False, 1, 1, 1, 8),
    on_shards(True, 1, 1, 1, 8),
    on_shards(False, 1, 2, 2, 2),
]


def too_short():
    with jax.set_mesh(jax.make_mesh((1, 1, 1, 8), MESH_AXES, axis_types=(AxisType.Auto,) * 4)):
        try:
            window_attention(*(x[:, :120] for x in (query, key, value)), radius=15, causal=True)
        except ConfigError as error:
            return str(error)


report["too short"] = too_short()
print(json.dumps(report))
