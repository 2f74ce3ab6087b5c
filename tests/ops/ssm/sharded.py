"""Run by test_convolution.py with eight forced CPU devices; prints what it saw as JSON."""

import json
import re

import jax
import numpy as np
from definition import random_parameters, segment_patterns
from jax.sharding import AxisType, NamedSharding

from spade_jax.ops.ssm.convolution import convolve
from spade_jax.ops.ssm.discrete import StateSpace, discretize, readout
from spade_jax.partition import MESH_AXES

assert jax.device_count() == 8
length, chunk = 64, 4
parameters = random_parameters(4, 8, 2, 2, True, seed=0, dtype=np.float32)
system, c = StateSpace(*parameters[:4]), parameters.c
random = np.random.default_rng(1)
u, weight = random.normal(size=(2, 16, length, 4)).astype(np.float32)
segment_ids = np.tile(segment_patterns(length, chunk), (2, 1))
weight = weight * (segment_ids != 0)[..., None]
# One segment over several shards, and a shard of padding alone in the middle of one.
segment_ids[0], segment_ids[1] = 1, np.repeat([1, 0, 1, 2], length // 4)


def make_mesh(*sizes):
    return jax.make_mesh(sizes, MESH_AXES, axis_types=(AxisType.Auto,) * 4)


def differentiated(method, packed, cut):
    def loss(system, c, u, weight, ids):
        y = convolve(
            discretize(system, "bilinear"),
            readout(c),
            u,
            method=method,
            chunk_length=chunk,
            segment_ids=ids if packed else None,
            bidirectional=True,
            max_kernel_length=cut,
        )
        y = y[:, :, 0] * weight
        return y.sum(), y

    return jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)


def compare(method, packed, cut, *sizes):
    """Largest difference from one device, collectives, and what a device holds of the input."""
    # On one device "chunked" for "fft" as well.
    expected = jax.jit(differentiated("chunked", packed, cut))(system, c, u, weight, segment_ids)
    mesh = make_mesh(*sizes)
    rows = NamedSharding(mesh, jax.P(("data", "fsdp"), "sequence"))
    with jax.set_mesh(mesh):
        placed = jax.device_put((u, weight, segment_ids), rows)
        shardings = ((None, rows), (None, None, rows))
        compute = jax.jit(differentiated(method, packed, cut), out_shardings=shardings)
        compiled = compute.lower(system, c, *placed).compile()
        sharded = compiled(system, c, *placed)
    errors = [
        float(np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(np.asarray(b)).max())
        for a, b in zip(jax.tree.leaves(sharded), jax.tree.leaves(expected))
    ]
    kinds = r"= (.+?) (all-gather|all-reduce|all-to-all|collective-permute)(?:-start)?\("
    found = [
        (re.sub(r"\{.*", "", shape), kind) for shape, kind in re.findall(kinds, compiled.as_text())
    ]
    return {
        "error": max(errors),
        "collectives": sorted({name for _, name in found}),
        "gathered": sorted({shape for shape, name in found if name == "all-gather"}),
        "shard": sharded[1][2].addressable_shards[0].data.shape,
    }


report = {"rows": {}, "sequence": []}
for packed in (False, True):
    for method in ("chunked", "fft"):
        name = f"{method}{' packed' if packed else ''}"
        report["rows"][name] = compare(method, packed, None, 2, 4, 1, 1)
for case in (
    (False, None, 1, 1, 1, 8),
    (True, None, 1, 1, 1, 8),
    (True, 11, 1, 1, 1, 8),
    (False, 11, 1, 2, 1, 4),
    (True, None, 1, 2, 2, 2),
    (True, None, 2, 1, 4, 1),
):
    report["sequence"].append(compare("chunked", *case))


def five_rows(system, c, u):
    return convolve(discretize(system, "bilinear"), readout(c), u[:5], method="fft")


alone = jax.jit(five_rows)(system, c[:2], u)
with jax.set_mesh(make_mesh(2, 4, 1, 1)):
    uneven = jax.jit(five_rows)(system, c[:2], u)
report["fft of five rows"] = {"error": float(np.abs(uneven - alone).max() / np.abs(alone).max())}
print(json.dumps(report))
