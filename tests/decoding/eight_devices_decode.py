"""Run by test_generate.py with eight forced CPU devices; prints what it wrote as JSON."""

import json

import jax
import numpy as np
from flax import nnx

from spade_jax.config import AttentionConfig, EncoderDecoderConfig, StackConfig
from spade_jax.decoding.config import DecodingConfig
from spade_jax.decoding.generate import make_generator
from spade_jax.mixers import S4, Window
from spade_jax.models.build import builder
from spade_jax.training import sharding
from spade_jax.training.config import MeshConfig
from spade_jax.training.step import abstract_model

assert jax.device_count() == 8
config = EncoderDecoderConfig(
    vocab_size=24,
    d_model=16,
    d_ff=24,
    encoder=StackConfig("s4+window:concat"),
    decoder=StackConfig("2*full"),
    mixers={"s4": S4(state_size=8, chunk_length=8), "window": Window(3)},
    attention=AttentionConfig(num_heads=2, num_buckets=8, max_distance=16),
)
mesh = sharding.make_mesh(MeshConfig(data=2, fsdp=4))
graph, shapes, _ = abstract_model(builder(config), mesh)
params = nnx.to_pure_dict(nnx.state(builder(config)(nnx.Rngs(2))))
params = jax.tree.map(np.asarray, params)
placed = jax.tree.map(lambda array, shape: jax.device_put(array, shape.sharding), params, shapes)
cut = sharding.make_mesh(MeshConfig(data=1, fsdp=2, tensor=2, sequence=2))
_, cut_shapes, _ = abstract_model(builder(config), cut)
moved = jax.tree.map(lambda array, shape: jax.device_put(array, shape.sharding), params, cut_shapes)

random = np.random.default_rng(0)
inputs = [[*random.integers(2, 24, size), 1] for size in range(1, 9)]
report = {}
for name, settings in (("greedy", {}), ("beam", {"beams": 2})):
    written = []
    for where, parameters in ((None, params), (mesh, placed), (cut, moved)):
        write = make_generator(
            lambda params: nnx.merge(graph, params),
            DecodingConfig(max_length=6, **settings),
            end_id=1,
            vocab_size=24,
            batch_size=8,
            input_length=64,
            mesh=where,
        )
        written.append(write(parameters, inputs).tolist())
    report[name] = written
print(json.dumps(report))
