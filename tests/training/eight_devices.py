"""Run by test_sharding.py with eight forced CPU devices; prints what it compared as JSON."""

import json
import sys

import jax
import numpy as np
from jax.sharding import AxisType
from stand_in import StandIn, batch

from spade_jax.training import sharding
from spade_jax.training.config import LossConfig, MeshConfig, OptimizerConfig, TrainConfig
from spade_jax.training.step import make_trainer


def train(mesh, name):
    trainer = make_trainer(
        StandIn,
        OptimizerConfig(name=name, learning_rate=1e-2, warmup_steps=2),
        LossConfig(z_loss=1e-3),
        TrainConfig(steps=10, batch_size=16, microbatches=2),
        mesh,
    )
    state = trainer.init()
    losses = []
    for step in range(3):
        state, metrics = trainer.train_step(state, sharding.place(batch(step, 16), mesh))
        losses.append(float(metrics["loss"]))
    return trainer, state, losses


name = sys.argv[1]
assert jax.device_count() == 8
one = jax.make_mesh(
    (1, 1), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2, devices=jax.devices()[:1]
)
_, expected, expected_losses = train(one, name)
report = []
for data, fsdp in ((1, 8), (2, 4), (8, 1)):
    trainer, state, losses = train(sharding.make_mesh(MeshConfig(data, fsdp)), name)
    pairs = list(zip(jax.tree.leaves(state), jax.tree.leaves(expected)))
    embedding = state.params["embedding"]
    report.append(
        {
            "fsdp": fsdp,
            "loss_error": float(np.max(np.abs(np.subtract(losses, expected_losses)))),
            # Slots included: Adam's first moment is the mean gradient.
            "state_error": max(
                float(np.max(np.abs(np.asarray(a, float) - np.asarray(b, float)))) for a, b in pairs
            ),
            "local_embedding": embedding.addressable_shards[0].data.shape,
            "slot_shards": sorted(
                {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(state.opt_state)}
            ),
            "as_planned": all(
                leaf.sharding.is_equivalent_to(shape.sharding, leaf.ndim)
                for leaf, shape in zip(
                    jax.tree.leaves(state), jax.tree.leaves(trainer.state_shapes)
                )
            ),
        }
    )
print(json.dumps(report))
