"""Run by test_sharding.py with eight forced CPU devices; prints what it compared as JSON."""

import json
import re
import sys
from pathlib import Path

import jax
import numpy as np
from jax.sharding import AxisType
from stand_in import VOCAB, batch

from spade_jax.config import AttentionConfig, StackConfig
from spade_jax.mixers import S4, Window
from spade_jax.models.build import builder
from spade_jax.models.presets import preset
from spade_jax.objectives.config import LossConfig
from spade_jax.objectives.seq2seq import Seq2Seq
from spade_jax.partition import MESH_AXES
from spade_jax.runs.checkpoints import Checkpoints
from spade_jax.training import sharding
from spade_jax.training.config import MeshConfig, OptimizerConfig, TrainConfig
from spade_jax.training.step import make_trainer

# Four shards of four tokens: as long as a block of the window, and as a chunk.
TARGETS, INPUTS, ROWS = 8, 16, 16
CONFIG = preset(
    "tiny",
    vocab_size=VOCAB,
    d_model=16,
    d_ff=32,
    dropout_rate=0.1,
    remat="dots",
    scan_layers=True,  # As accelerators do with many layers.
    encoder=StackConfig("s4+window:concat, 2*window"),
    decoder=StackConfig("full"),
    mixers={"s4": S4(state_size=4, chunk_length=4), "window": Window(3)},
    attention=AttentionConfig(num_heads=2, head_dim=8, num_buckets=8, max_distance=16),
)


def make(mesh):
    return make_trainer(
        builder(CONFIG),
        Seq2Seq(LossConfig(z_loss=1e-3)),
        # SGD's first moment of AdamW is 0.1 times the first gradient.
        OptimizerConfig(learning_rate=1e-3, warmup_steps=2, clip_norm=None),
        TrainConfig(steps=10, batch_size=ROWS, microbatches=2),
        mesh,
    )


def train(trainer):
    """Losses and digests of batches, the state after one step and three, and the program."""
    state = trainer.init()
    losses, digests = [], []
    for step in range(3):
        data = batch(step, ROWS, TARGETS)
        # Packed, with a segment that goes over several shards.
        data["encoder_segment_ids"] = np.where(np.arange(INPUTS) < 9, 1, 2)[None].repeat(ROWS, 0)
        data["decoder_segment_ids"] = (data["decoder_target_tokens"] != 0).astype(np.int64)
        data = {name: array.astype(np.int32) for name, array in data.items()}
        placed = sharding.place(data, trainer.mesh)
        if step == 0:
            program = trainer.train_step.lower(state, placed).compile()
        state, metrics = program(state, placed)
        losses.append(float(metrics["loss"]))
        digests.append(int(metrics["batch_digest"]))
        if step == 0:
            after_one = jax.tree.map(np.asarray, state)
    return losses, digests, after_one, state, program.as_text()


def evaluate(trainer, state):
    """The loss of targets whose length no mesh divides, so that they are filled up."""
    data = {
        name: array[:, : TARGETS - 1] if name.startswith("decoder") else array
        for name, array in batch(9, trainer.eval_batch_size, TARGETS).items()
    }
    sums = trainer.eval_step(state.params, sharding.place(data, trainer.mesh))
    return float(sums.loss) / int(sums.tokens)


def error(some, other):
    pairs = zip(jax.tree.leaves(some), jax.tree.leaves(other), strict=True)
    return max(float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) for a, b in pairs)


def first_moment(state):
    (found,) = (s for s in jax.tree.leaves(state.opt_state, is_leaf=has_moments) if has_moments(s))
    return found.mu


def has_moments(x):
    return hasattr(x, "mu")


assert jax.device_count() == 8
sizes, directory = json.loads(sys.argv[1]), Path(sys.argv[2])
one = make(
    jax.make_mesh((1,) * 4, MESH_AXES, axis_types=(AxisType.Auto,) * 4, devices=jax.devices()[:1])
)
losses, digests, after_one, expected, _ = train(one)
expected_evaluation = evaluate(one, expected)
report = {"meshes": [], "moves": 0, "moves_exact": 0, "input_length": INPUTS}
trainers, states = [], []
for number, mesh in enumerate(sizes):
    trainer = make(sharding.make_mesh(MeshConfig(*mesh)))
    found_losses, found_digests, found_after_one, state, program = train(trainer)
    gathered = re.findall(r"= \w+\[([\d,]*)\]\S* all-gather(?:-start)?\(", program)
    # Activations of the encoder are the arrays of three and more axes, [b, l, ...]; those of one
    # row alone are parameters of a layer, for each device has several rows.
    along = [list(map(int, shape.split(","))) for shape in gathered if shape.count(",") >= 2]
    along = [shape for shape in along if shape[0] > 1]
    report["meshes"].append(
        {
            "loss_error": float(np.max(np.abs(np.subtract(found_losses, losses)))),
            "same_batches": found_digests == digests,
            "eval_error": abs(evaluate(trainer, state) - expected_evaluation),
            "gradient_error": 10 * error(first_moment(found_after_one), first_moment(after_one)),
            "state_error": error(state, expected),
            "as_planned": all(
                leaf.sharding.is_equivalent_to(shape.sharding, leaf.ndim)
                for leaf, shape in zip(
                    jax.tree.leaves(state), jax.tree.leaves(trainer.state_shapes)
                )
            ),
            "gathered": sorted(set(gathered)),
            "permutes": len(re.findall(r" collective-permute(?:-start)?\(", program)),
            "longest_gathered": max((shape[1] for shape in along), default=0),
        }
    )
    checkpoints = Checkpoints(directory / str(number), keep=1)
    checkpoints.save(3, state, lambda: b"", {"settings": {}, "vocabulary": ""})
    checkpoints.wait()
    checkpoints.close()
    trainers.append(trainer)
    states.append(state)
for number, state in enumerate(states):
    for trainer in trainers:
        checkpoints = Checkpoints(directory / str(number), keep=1)
        moved, _ = checkpoints.restore(trainer.state_shapes)
        checkpoints.close()
        placed = all(
            leaf.sharding.is_equivalent_to(shape.sharding, leaf.ndim)
            for leaf, shape in zip(jax.tree.leaves(moved), jax.tree.leaves(trainer.state_shapes))
        )
        report["moves"] += 1
        report["moves_exact"] += placed and error(moved, state) == 0.0
print(json.dumps(report))
