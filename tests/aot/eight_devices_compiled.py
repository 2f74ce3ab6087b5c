"""Run by test_compiled.py with eight forced CPU devices; prints what a small program costs."""

import json

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from spade_jax.aot import hlo
from spade_jax.training.config import MeshConfig
from spade_jax.training.sharding import make_mesh

mesh = make_mesh(MeshConfig(fsdp=2, tensor=2, data=2))


def layers(x, weights):
    """Rows [2, 4] of each device times weights [4, 8], summed over tensor."""

    def layer(x, w):
        w = jax.lax.all_gather(w, "fsdp", axis=1, tiled=True)
        y = jax.lax.psum(x @ w, "tensor")
        half = jax.lax.axis_index("tensor") * 4
        return jnp.tanh(jax.lax.dynamic_slice_in_dim(y, half, 4, 1)), None

    return jax.lax.scan(layer, x, weights)[0]


step = jax.jit(
    jax.shard_map(
        layers,
        mesh=mesh,
        in_specs=(P(("data", "fsdp"), "tensor"), P(None, "tensor", "fsdp")),
        out_specs=P(("data", "fsdp"), "tensor"),
        check_vma=False,
    )
)
shapes = (
    jax.ShapeDtypeStruct(
        (8, 8), jnp.float32, sharding=NamedSharding(mesh, P(("data", "fsdp"), "tensor"))
    ),
    jax.ShapeDtypeStruct(
        (3, 8, 8), jnp.float32, sharding=NamedSharding(mesh, P(None, "tensor", "fsdp"))
    ),
)
cost = hlo.count(step.lower(*shapes).compile().as_text(), dict(mesh.shape))
found = [[c.kind, list(c.axes), c.bytes, times] for c, times in cost.collectives]
print(json.dumps({"flops": cost.flops, "collectives": found}))
