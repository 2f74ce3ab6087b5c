"""Run by test_adaptive.py with eight forced CPU devices; prints what it compared as JSON."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from spade_jax import partition
from spade_jax.ops import adaptive
from spade_jax.ops.adaptive import Tail, adaptive_scores
from spade_jax.training.config import MeshConfig
from spade_jax.training.sharding import make_mesh, replicated

adaptive._TOKENS = 4
rng = np.random.default_rng(0)


def array(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


arguments = (
    array(8, 6, 8),
    array(8, 8),
    [Tail(array(8, 6, 4), array(9, 4)), Tail(array(8, 6, 2), array(25, 2))],
)
# Devices have different numbers of tokens in a band, and some have none.
targets = jnp.asarray(np.sort(rng.integers(0, 40, (8, 6)), axis=None).reshape(8, 6))
weights = jnp.asarray(rng.normal(size=(2, 8, 6)))


def total(arguments):
    scores = adaptive_scores(*arguments, targets)
    return jnp.sum(jnp.stack([scores.log_z, scores.target]) * weights), scores


def on_mesh(mesh):
    def compute(arguments):
        with partition.on_mesh(mesh):
            return jax.grad(total, has_aux=True)(arguments)

    return jax.jit(compute, out_shardings=replicated(mesh))(arguments)


def difference(found, expected):
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected))
    return max(float(jnp.abs(a - b).max()) for a, b in pairs)


gradients, scores = jax.jit(jax.grad(total, has_aux=True))(arguments)
report = []
for sizes in ((2, 2, 2, 1), (1, 2, 2, 2)):
    found_gradients, found = on_mesh(make_mesh(MeshConfig(*sizes)))
    report.append(
        {
            "sizes": sizes,
            "error": difference(found[:2], scores[:2]),
            "gradient_error": difference(found_gradients, gradients),
            "best": bool((found.best == scores.best).all()),
        }
    )
print(json.dumps(report))
