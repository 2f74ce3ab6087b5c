"""Run by test_convolution.py with eight forced CPU devices; prints what it saw as JSON."""

import json
import re

import jax
import numpy as np
from definition import random_parameters, segment_patterns
from jax.sharding import AxisType, NamedSharding

from spade_jax.ops.ssm.convolution import convolve
from spade_jax.ops.ssm.discrete import StateSpace, discretize, readout

assert jax.device_count() == 8
length, chunk = 40, 4
mesh = jax.make_mesh((2, 4), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
rows = NamedSharding(mesh, jax.P(("data", "fsdp")))
parameters = random_parameters(4, 8, 2, 2, True, seed=0, dtype=np.float32)
system, c = StateSpace(*parameters[:4]), parameters.c
random = np.random.default_rng(1)
u, weight = random.normal(size=(2, 16, length, 4)).astype(np.float32)
segment_ids = np.tile(segment_patterns(length, chunk), (2, 1))
weight = weight * (segment_ids != 0)[..., None]

report = {}
for packed in (False, True):
    expected = None
    for method in ("chunked", "fft"):

        def loss(system, c, u, weight, ids, method=method, packed=packed):
            y = convolve(
                discretize(system, "bilinear"),
                readout(c),
                u,
                method=method,
                chunk_length=chunk,
                segment_ids=ids if packed else None,
                bidirectional=True,
            )
            y = y[:, :, 0] * weight
            return y.sum(), y

        compute = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
        if expected is None:  # on one device: "chunked" for "fft" as well
            expected = jax.jit(compute)(system, c, u, weight, segment_ids)
        with jax.set_mesh(mesh):
            placed = jax.device_put((u, weight, segment_ids), rows)
            shardings = ((None, rows), (None, None, rows))
            sharded_compute = jax.jit(compute, out_shardings=shardings)
            compiled = sharded_compute.lower(system, c, *placed).compile()
            sharded = compiled(system, c, *placed)
        errors = [
            float(np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(np.asarray(b)).max())
            for a, b in zip(jax.tree.leaves(sharded), jax.tree.leaves(expected))
        ]
        collectives = r" (all-gather|all-reduce|all-to-all|collective-permute)(?:-start)?\("
        report[f"{method}{' packed' if packed else ''}"] = {
            "error": max(errors),
            "collectives": sorted(set(re.findall(collectives, compiled.as_text()))),
            "shard": sharded[1][2].addressable_shards[0].data.shape,
        }


def five_rows(system, c, u):
    return convolve(discretize(system, "bilinear"), readout(c), u[:5], method="fft")


alone = jax.jit(five_rows)(system, c[:2], u)
with jax.set_mesh(mesh):
    uneven = jax.jit(five_rows)(system, c[:2], u)
report["fft of five rows"] = {"error": float(np.abs(uneven - alone).max() / np.abs(alone).max())}
print(json.dumps(report))
