"""Run by test_conformance.py with eight forced CPU devices; prints what it saw as JSON."""

import json

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from stacks import PATTERNS, inputs, stack

from spade_jax import partition
from spade_jax.training.config import MeshConfig
from spade_jax.training.sharding import batch_sharding, make_mesh, replicated

LENGTH = 32


def compute(pattern, sizes):
    graph, state = stack(pattern, causal=False)
    x, weights = inputs(4, LENGTH), inputs(4, LENGTH, seed=1)
    segments = jnp.asarray(np.repeat([[1] * 13 + [2] * 14 + [0] * 5], 4, axis=0))
    mesh = None if sizes is None else make_mesh(MeshConfig(*sizes))

    def loss(state, x):
        y, _ = nnx.merge(graph, state)(x, segment_ids=segments)
        y = jnp.where(segments[..., None] != 0, y, 0)
        return jnp.sum(y * weights), y

    gradient = jax.value_and_grad(loss, has_aux=True)
    if mesh is None:
        return jax.jit(gradient)(state, x)

    def on_mesh(state, x):
        with partition.on_mesh(mesh):
            return gradient(state, partition.constrain(x, "batch", "length", None))

    everywhere = replicated(mesh)
    arguments = (everywhere, batch_sharding(mesh))
    return jax.jit(on_mesh, in_shardings=arguments, out_shardings=everywhere)(state, x)


reports = []
# Each mixer alone, and SPADE.
for pattern in PATTERNS[:7]:
    (_, expected), gradients = compute(pattern, None)
    # Full attention both ways does not take cut sequences.
    sizes = (2, 1, 2, 2) if "full" not in pattern else (2, 2, 2, 1)
    (_, y), found = compute(pattern, sizes)
    errors = jax.tree.map(
        lambda a, b: float(jnp.abs(a - b).max() / (jnp.abs(b).max() + 1e-6)), found, gradients
    )
    reports.append(
        {
            "pattern": pattern,
            "error": float(jnp.abs(y - expected).max()),
            "gradient_error": max(jax.tree.leaves(errors)),
        }
    )
print(json.dumps(reports))
