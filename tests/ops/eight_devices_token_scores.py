"""Run by test_token_scores.py with eight forced CPU devices; prints what it compared as JSON."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from spade_jax import partition
from spade_jax.ops.token_scores import token_scores
from spade_jax.training.config import MeshConfig
from spade_jax.training.sharding import make_mesh, replicated

rng = np.random.default_rng(0)
states = jnp.asarray(rng.normal(size=(8, 6, 8)), jnp.float32)
matrix = jnp.asarray(rng.normal(size=(40, 8)), jnp.float32)
targets = jnp.asarray(rng.integers(0, 40, (8, 6)))
weights = jnp.asarray(rng.normal(size=(2, 8, 6)))


def total(states, matrix):
    scores = token_scores(states, matrix, targets)
    return jnp.sum(jnp.stack([scores.log_z, scores.target]) * weights), scores


def on_mesh(mesh):
    def compute(states, matrix):
        with partition.on_mesh(mesh):
            return jax.grad(total, argnums=(0, 1), has_aux=True)(states, matrix)

    return jax.jit(compute, out_shardings=replicated(mesh))(states, matrix)


gradients, scores = jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))(states, matrix)
report = []
for sizes in ((2, 2, 2, 1), (1, 2, 2, 2), (1, 2, 4, 1)):
    found_gradients, found = on_mesh(make_mesh(MeshConfig(*sizes)))
    report.append(
        {
            "sizes": sizes,
            "error": max(float(jnp.abs(a - b).max()) for a, b in zip(found[:2], scores[:2])),
            "gradient_error": max(
                float(jnp.abs(a - b).max()) for a, b in zip(found_gradients, gradients)
            ),
            "best": bool((found.best == scores.best).all()),
        }
    )
print(json.dumps(report))
