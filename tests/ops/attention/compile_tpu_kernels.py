"""Run by test_tpu_kernels.py: compiles attention, forward and backward, for TPUs that are not here;
prints as JSON which kernels each program has.

    python compile_tpu_kernels.py v5e:2x2
"""

import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from spade_jax import partition
from spade_jax.aot.topology import devices, parse_topology, set_environment
from spade_jax.ops.attention.full import full_attention
from spade_jax.ops.attention.window import window_attention

topology = parse_topology(sys.argv[1])
set_environment(topology)
chips = np.array(devices(topology)[:4])
# Heads and lengths of the base model, and what lies beside it.
CASES = {
    "window": dict(),
    "window causal": dict(causal=True),
    "window without bias, segments": dict(bias=False, segments=False),
    "window of 512": dict(radius=512),
    "window of 1024": dict(radius=1024),
    "window heads of 128": dict(size=128, heads=6),
    "window heads of 256": dict(size=256, heads=2),
    "window float32": dict(dtype="float32"),
    "window dropout": dict(dropout=0.1),
    "window in shards": dict(sequence=4, dropout=0.1),
    "full": dict(causal=True),
    "full bidirectional": dict(),
    "full without bias": dict(causal=True, bias=False),
    "full heads of 128": dict(causal=True, size=128, heads=6),
    "full heads of 256": dict(causal=True, size=256, heads=2),
    "full float32": dict(causal=True, dtype="float32"),
    "full of 4096": dict(causal=True, length=4096, dropout=0.1),
    "full of 2048 in float32": dict(causal=True, length=2048, dtype="float32"),
    "full in shards": dict(causal=True, sequence=4, length=1024),
    "full cross": dict(keys=4096),
    "full cross in float32": dict(keys=2048, dtype="float32"),
    "full cross dropout": dict(keys=4096, dropout=0.1),
    "full cross in shards": dict(keys=4096, sequence=4, length=1024),
}


def compiled(name):
    """The names of the kernels in a program, sorted."""
    case = (
        dict(
            length=4096 if "window" in name else 910,
            keys=None,
            heads=12,
            size=64,
            sequence=1,
            causal=False,
            bias=True,
            segments=True,
            dropout=0.0,
            radius=127,
            dtype="bfloat16",
        )
        | CASES[name]
    )
    length, heads, keys = case["length"], case["heads"], case["keys"] or case["length"]
    mesh = Mesh(chips[: case["sequence"]].reshape(1, 1, 1, -1), partition.MESH_AXES)

    def shape(*dims, dtype=case["dtype"], axes=()):
        place = NamedSharding(mesh, PartitionSpec(*axes))
        return jax.ShapeDtypeStruct(dims, dtype, sharding=place)

    def attend(query, key, value, bias, query_segments, key_segments, dropout_key):
        settings = dict(causal=case["causal"], bias=bias)
        if case["dropout"]:
            settings |= dict(dropout_rate=case["dropout"], dropout_key=dropout_key)
        if "window" in name:
            settings |= dict(segment_ids=query_segments, radius=case["radius"])
            return window_attention(query, key, value, **settings)
        settings |= dict(query_segment_ids=query_segments, key_segment_ids=key_segments)
        return full_attention(query, key, value, **settings)

    @jax.jit
    def gradients(flat, *others):
        def total(flat, bias):
            split = [array.reshape(*array.shape[:2], heads, -1) for array in flat]
            return jnp.sum(attend(*split, bias, *others[1:]).astype(jnp.float32) ** 2)

        return jax.value_and_grad(total, (0, 1) if others[0] is not None else 0)(flat, others[0])

    tokens = [
        shape(2, n, heads * case["size"], axes=(None, "sequence")) for n in (length, keys, keys)
    ]
    reach = case["radius"] if "window" in name else min(length - 1, 128)
    bias = case["bias"] and keys == length
    segments = [shape(2, n, dtype=jnp.int32, axes=(None, "sequence")) for n in (length, keys)]
    with partition.on_mesh(mesh):
        lowered = gradients.lower(
            tokens,
            shape(heads, 2 * reach + 1, dtype=jnp.float32) if bias else None,
            *(segments if case["segments"] else [None, None]),
            shape(dtype=jax.random.key(0).dtype),
        )
    text = lowered.compile().as_text()
    calls = re.findall(r"custom_call_target=\"tpu_custom_call\".*", text)
    return sorted(re.search(r"(window|full)_(forward|backward)", call)[0] for call in calls)


print(json.dumps({name: compiled(name) for name in sys.argv[2:] or CASES}))
