"""Checkpoints of a few numbers, as a run would leave them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from spade_jax.models.presets import preset
from spade_jax.runs.checkpoints import Checkpoints
from spade_jax.training.config import TrainConfig
from spade_jax.training.step import TrainState

SETTINGS = {
    "model": dataclasses.asdict(preset("tiny", vocab_size=384)),
    "train": dataclasses.asdict(TrainConfig(steps=9, batch_size=8, best_metric="score")),
    "data": {"vocabulary": "byte", "extra_ids": 100, "input_length": 64},
}
ABOUT = {"settings": SETTINGS, "vocabulary": "abc"}


def state_of(step):
    rng = np.random.default_rng(step)
    return TrainState(
        jnp.int32(step),
        {"a": jnp.asarray(rng.normal(size=(64, 33)), jnp.float32), "l": {0: jnp.ones(3)}},
        (jnp.full(5, 0.5), {}),
    )


def shapes():
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state_of(0)
    )


def save(directory, steps, about=ABOUT):
    """Saves these steps, with what the run knows of its evaluations."""
    checkpoints = Checkpoints(directory, keep=9)
    for step in steps:
        checkpoints.save(step, state_of(step), lambda step=step: b"position %d" % step, about)
    checkpoints.wait()
    checkpoints.close()
