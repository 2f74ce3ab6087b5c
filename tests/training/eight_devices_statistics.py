"""Run by test_statistics.py with eight forced CPU devices; prints what it compared as JSON."""

import json

import jax
import numpy as np
from stand_in import Normed, batch

from spade_jax.objectives.seq2seq import Seq2Seq
from spade_jax.training import sharding
from spade_jax.training.config import MeshConfig, OptimizerConfig, TrainConfig
from spade_jax.training.step import make_trainer
from spade_jax.trees import paths


def parameters_after(devices, **mesh):
    trainer = make_trainer(
        Normed,
        Seq2Seq(),
        OptimizerConfig(learning_rate=1e-2, warmup_steps=0, eps=1e-5),
        TrainConfig(steps=10, batch_size=16, microbatches=2),
        sharding.make_mesh(MeshConfig(**mesh), devices),
    )
    state = trainer.init()
    for step in range(2):
        state, _ = trainer.train_step(state, sharding.place(batch(step, 16), trainer.mesh))
    return paths(jax.tree.map(np.asarray, state.params))


expected = parameters_after(jax.devices()[:1], data=1, fsdp=1)
report = []
for mesh in ({"data": 4, "fsdp": 2}, {"data": 2, "fsdp": 2, "sequence": 2}):
    found = parameters_after(jax.devices(), **mesh)
    report.append({name: float(np.abs(found[name] - expected[name]).max()) for name in expected})
print(json.dumps(report))
