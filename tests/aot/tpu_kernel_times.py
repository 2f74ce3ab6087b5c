"""Run by test_step_time.py in its own process: what a program with Pallas kernels takes on a TPU
that is not there, as JSON."""

import dataclasses
import json

from spade_jax.aot.topology import devices, parse_topology, set_environment

topology = parse_topology("v5e:2x2")
set_environment(topology)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.experimental import pallas as pl  # noqa: E402
from jax.sharding import Mesh, NamedSharding, PartitionSpec  # noqa: E402

from spade_jax.aot import estimate  # noqa: E402
from spade_jax.aot.hlo_program import Program  # noqa: E402
from spade_jax.aot.kernels import count_bundles  # noqa: E402
from spade_jax.aot.step_time import summarise  # noqa: E402
from spade_jax.places import place  # noqa: E402


def squared(x, block):
    """x [l, 128], a block of rows at a time: x + x @ x[:128]."""

    def kernel(rows, first, out):
        out[...] = rows[...] + jnp.dot(rows[...], first[...], preferred_element_type=jnp.float32)

    return pl.pallas_call(
        kernel,
        grid=(x.shape[0] // block,),
        in_specs=[pl.BlockSpec((block, 128), lambda i: (i, 0)), pl.BlockSpec((128, 128), _first)],
        out_specs=pl.BlockSpec((block, 128), lambda i: (i, 0)),
        out_shape=jax.ShapeDtypeStruct(x.shape, jnp.float32),
    )(x, x)


def _first(i):
    return 0, 0


def program(x, wide):
    with place("short"):  # One kernel, run three times.
        x, _ = jax.lax.scan(lambda x, _: (squared(x, 256), None), x, length=3)
    return place("sum")(jnp.cumsum)(x, axis=0), place("long")(squared)(wide, 256)


mesh = Mesh(np.array(devices(topology)[:1]), ("chip",))
where = NamedSharding(mesh, PartitionSpec())
x, wide = (
    jax.ShapeDtypeStruct((rows, 128), jnp.float32, sharding=where) for rows in (4096, 4 * 4096)
)
compiled = Program.of(jax.jit(program, out_shardings=where).lower(x, wide).compile().as_text())
kernels = estimate.kernels(compiled)
parts = estimate.work(compiled, count_bundles(kernels, topology))
time = summarise(parts, topology.chip.clock, {}, None, mesh.devices.flat[0].device_kind)
calls = [(part.place, part.times, part.cycles) for part in parts if part.source == estimate.BUNDLES]
print(json.dumps({"kernels": len(kernels), "calls": calls, **dataclasses.asdict(time)}))
