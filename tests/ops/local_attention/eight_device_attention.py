"""Run by test_window_sharding.py with eight forced CPU devices; prints what it found as JSON."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from spade_jax.ops.full_attention import full_attention
from spade_jax.ops.local_attention.window import window_attention, window_relative_positions

assert jax.device_count() == 8
mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
length, radius = 2100, 15
rng = np.random.default_rng(0)
query, key, value = (rng.normal(size=(4, length, 2, 4)).astype(np.float32) for _ in range(3))
segment_ids = np.repeat(rng.integers(0, 3, (4, length // 100)), 100, axis=1).astype(np.int32)
bias = rng.normal(size=(2, *window_relative_positions(radius, False).shape)).astype(np.float32)


def window(query, key, value, segment_ids, bias, dropout_key, rate):
    return window_attention(
        query,
        key,
        value,
        radius=radius,
        causal=False,
        segment_ids=segment_ids,
        bias=bias,
        dropout_rate=rate,
        dropout_key=dropout_key,
    )


def full(query, key, value, segment_ids, bias, dropout_key, rate):
    return full_attention(
        *(array[:, :100] for array in (query, key, value)),
        causal=True,
        query_segment_ids=segment_ids[:, :100],
        key_segment_ids=segment_ids[:, :100],
        dropout_rate=rate,
        dropout_key=dropout_key,
    )


def programs(attention, rate):
    def forward(*arguments):
        return attention(*arguments, rate)

    def backward(*arguments):
        def total(query, key, value, bias):
            output = attention(query, key, value, arguments[3], bias, arguments[5], rate)
            return jnp.sum(jnp.sin(output))

        return jax.grad(total, (0, 1, 2, 3))(*arguments[:3], arguments[4])

    return {"forward": forward, "backward": backward}


heads = NamedSharding(mesh, P("data", None, "model"))
shardings = (
    *[heads] * 3,
    NamedSharding(mesh, P("data")),
    NamedSharding(mesh, P("model")),
    NamedSharding(mesh, P()),
)
results = {"forward": heads, "backward": (*[heads] * 3, shardings[4])}
arguments = (query, key, value, segment_ids, bias, jax.random.key(0))
report = {}
for name, attention in (("window", window), ("full", full)):
    for rate in (0.0, 0.2):
        for direction, function in programs(attention, rate).items():
            compiled = (
                jax.jit(function, in_shardings=shardings, out_shardings=results[direction])
                .lower(*arguments)
                .compile()
            )
            collectives = re.findall(
                r" (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)",
                compiled.as_text(),
            )
            sharded = compiled(*(jax.device_put(a, s) for a, s in zip(arguments, shardings)))
            single = jax.jit(function)(*arguments)
            report[f"{name} {direction} {rate}"] = {
                "collectives": sorted(set(collectives)),
                "error": max(
                    float(np.max(np.abs(np.asarray(a) - np.asarray(b))))
                    for a, b in zip(jax.tree.leaves(sharded), jax.tree.leaves(single))
                ),
            }
print(json.dumps(report))
