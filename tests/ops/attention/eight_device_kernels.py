"""Run by test_kernels_on_shards.py with eight forced CPU devices; prints what it found as JSON.

Each implementation but XLA's, interpreted, on meshes that cut everything, against XLA's on one
device: outputs and gradients, with packed segments, biases and dropout.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
from arrays import normal
from full_inputs import inputs
from implementations import interpretable
from jax.sharding import AxisType, NamedSharding
from small_tiles import use_small_tiles

from spade_jax import partition
from spade_jax.ops import dispatch
from spade_jax.ops.attention.full import FULL_ATTENTION, full_attention
from spade_jax.ops.attention.window import WINDOW_ATTENTION, window_attention
from spade_jax.partition import MESH_AXES

use_small_tiles(setattr)
DROPOUT = dict(dropout_rate=0.25, dropout_key=jax.random.key(1))


def segments(length):
    """Two rows: packed, and padded."""
    packed = 1 + (np.arange(length) >= length // 3) + (np.arange(length) >= 3 * length // 4)
    return np.stack([packed, np.arange(length) < length - 9]).astype(np.int32)


def window(query, key, value, bias, query_segments, _, **settings):
    return window_attention(
        query, key, value, radius=9, causal=False, segment_ids=query_segments, bias=bias, **settings
    )


def full(query, key, value, bias, query_segments, key_segments, **settings):
    return full_attention(
        query,
        key,
        value,
        causal=bias is not None,
        query_segment_ids=query_segments,
        key_segment_ids=key_segments,
        bias=bias,
        **settings,
    )


def results(attention, implementation, arguments, mesh=None):
    *arrays, query_segments, key_segments = arguments
    count = len([array for array in arrays if array is not None])

    def total(*arrays):
        arrays = [*arrays, None][:4]
        output = attention(
            *arrays, query_segments, key_segments, implementation=implementation, **DROPOUT
        )
        return jnp.sum(jnp.sin(output)), output

    function = jax.jit(jax.value_and_grad(total, tuple(range(count)), has_aux=True))
    if mesh is None:
        return function(*arrays[:count])
    with jax.set_mesh(mesh), dispatch.interpreted():

        def placed(array):
            axes = ("batch", "length", "heads", None) if array.ndim == 4 else (None, None)
            spec = partition.partition_spec(partition.sharded_axes(axes, array.shape))
            return jax.device_put(array, NamedSharding(mesh, spec))

        return function(*map(placed, arrays[:count]))


def errors(attention, implementation, lengths, bias, sizes):
    mesh = jax.make_mesh(sizes, MESH_AXES, axis_types=(AxisType.Auto,) * 4)
    arguments = (*inputs(*lengths), bias, *map(segments, lengths))
    found = results(attention, implementation, arguments, mesh)
    expected = results(attention, "xla", arguments)
    return [
        float(np.max(np.abs(np.asarray(a) - np.asarray(b))))
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected))
    ]


report = {}
for operation, cases in (
    (
        WINDOW_ATTENTION,
        {
            "window": (window, (80, 80), normal((2, 19)), (1, 1, 2, 4)),
        },
    ),
    (
        FULL_ATTENTION,
        {
            "causal": (full, (80, 80), normal((2, 15)), (1, 2, 1, 4)),
            "cross, keys cut": (full, (37, 72), None, (1, 2, 2, 2)),
        },
    ),
):
    for name in interpretable(operation):
        if name == "xla":
            continue
        for case, (attention, *rest) in cases.items():
            report[f"{case}, {name}"] = errors(attention, name, *rest)
print(json.dumps(report))
