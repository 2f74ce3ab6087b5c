"""Run by test_sharding.py with eight forced CPU devices; prints what it compared as JSON."""

import json
import sys

import jax
import numpy as np
from jax.sharding import AxisType
from stand_in import VOCAB, StandIn, batch

from spade_jax.config import AttentionConfig, StackConfig
from spade_jax.mixers import S4, Window
from spade_jax.models.build import builder
from spade_jax.models.presets import preset
from spade_jax.objectives.config import LossConfig
from spade_jax.objectives.seq2seq import Seq2Seq
from spade_jax.partition import MESH_AXES
from spade_jax.training import sharding
from spade_jax.training.config import MeshConfig, OptimizerConfig, TrainConfig
from spade_jax.training.step import make_trainer

SPADE = preset(
    "tiny",
    vocab_size=VOCAB,
    d_model=16,
    d_ff=32,
    encoder=StackConfig("s4+window:concat, 2*window"),
    decoder=StackConfig("full"),
    mixers={"s4": S4(state_size=4, chunk_length=4), "window": Window(3)},
    attention=AttentionConfig(num_heads=2, num_buckets=8, max_distance=16),
    dropout_rate=0.1,
)
MODELS = {"stand-in": StandIn, "spade": builder(SPADE)}


def train(mesh):
    trainer = make_trainer(
        MODELS[model],
        Seq2Seq(LossConfig(z_loss=1e-3)),
        # With AdamW's usual eps, gradients that add up to 1e-8 move a parameter by their rounding.
        OptimizerConfig(name=optimizer, learning_rate=1e-2, warmup_steps=2, eps=1e-5),
        TrainConfig(steps=10, batch_size=16, microbatches=2),
        mesh,
    )
    state = trainer.init()
    losses = []
    for step in range(3):
        state, metrics = trainer.train_step(state, sharding.place(batch(step, 16), mesh))
        losses.append(float(metrics["loss"]))
    return trainer, state, losses


model, optimizer = sys.argv[1:3]
assert jax.device_count() == 8
one = jax.make_mesh((1,) * 4, MESH_AXES, axis_types=(AxisType.Auto,) * 4, devices=jax.devices()[:1])
_, expected, expected_losses = train(one)
report = []
for data, fsdp in json.loads(sys.argv[3]):
    trainer, state, losses = train(sharding.make_mesh(MeshConfig(data, fsdp)))
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
