"""Run by test_tpu_state_space.py: compiles the chunked state space, forward and backward, for TPUs
that are not here; prints as JSON which kernels each program has.

    python compile_tpu_state_space.py v5e:2x2
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
from spade_jax.ops.ssm.convolution import convolve
from spade_jax.ops.ssm.discrete import DiscreteStateSpace, StateSpace, discretize
from spade_jax.ops.ssm.transition import RealDiagonal

topology = parse_topology(sys.argv[1])
set_environment(topology)
chips = np.array(devices(topology)[:4])
# Rows, lengths and states of the base model, on each of four chips, and what lies beside it.
CASES = {
    "S4": dict(),
    "S4, segments": dict(segments=True),
    "S4 causal": dict(directions=1),
    "S4 of 16,384": dict(length=16384, rows=2, segments=True),
    "S4 with a block to fill up": dict(length=4000, segments=True),
    "S4 float32": dict(dtype="float32", segments=True),
    "S4 with 16 states": dict(states=16, segments=True),
    "S4 with 24 states, three features": dict(states=24, features=3),
    "S4 with blocks of 256": dict(chunk=256),
    "S4 with five rows": dict(rows=5),
    "S4D": dict(low_rank=False, segments=True),
    "moving average": dict(average=True, states=16),
    "features exchanged": dict(fsdp=4, segments=True),
}


def compiled(name):
    """The names of the kernels in a program, sorted."""
    case = (
        dict(
            rows=8,
            length=4096,
            features=16,
            states=64,
            directions=2,
            chunk=128,
            segments=False,
            dtype="bfloat16",
            low_rank=True,
            average=False,
            fsdp=1,
        )
        | CASES[name]
    )
    d, n = case["features"], case["states"]
    mesh = Mesh(chips[: case["fsdp"]].reshape(1, -1, 1, 1), partition.MESH_AXES)

    def shape(*dims, dtype=jnp.float32, axes=()):
        return jax.ShapeDtypeStruct(dims, dtype, sharding=NamedSharding(mesh, PartitionSpec(*axes)))

    pair = shape(d, n // 2, dtype=jnp.complex64)
    continuous = StateSpace(pair, pair if case["low_rank"] else None, pair, shape(d))
    average = DiscreteStateSpace(RealDiagonal(shape(d, n)), shape(d, n))

    def total(system, c, u, skip, segment_ids):
        y = convolve(
            discretize(system, "bilinear") if isinstance(system, StateSpace) else system,
            c,
            u,
            skip=skip,
            dtype=u.dtype,
            chunk_length=case["chunk"],
            segment_ids=segment_ids,
            bidirectional=case["directions"] == 2,
        )
        return jnp.sum(y.astype(jnp.float32) ** 2)

    tokens = case["rows"], case["length"]
    with partition.on_mesh(mesh):
        lowered = jax.jit(jax.value_and_grad(total, (1, 2, 3))).lower(
            average if case["average"] else continuous,
            shape(case["directions"], d, n),
            shape(*tokens, d, dtype=case["dtype"], axes=("fsdp",)),
            shape(d),
            shape(*tokens, dtype=jnp.int32, axes=("fsdp",)) if case["segments"] else None,
        )
    text = lowered.compile().as_text()
    calls = re.findall(r"custom_call_target=\"tpu_custom_call\".*", text)
    return sorted(re.search(r"state_space_(forward|backward)", call)[0] for call in calls)


print(json.dumps({name: compiled(name) for name in sys.argv[2:] or CASES}))
