"""What becomes of each parameter of the checkpoint, and of the model."""

import dataclasses

import jax
import numpy as np
import pytest
from rich.console import Console

from spade_jax.config import ConfigError
from spade_jax.data.task_config import TaskConfig
from spade_jax.models.build import builder
from spade_jax.objectives.seq2seq import Seq2Seq
from spade_jax.runs.checkpoints import CheckpointError
from spade_jax.runs.open import open_run
from spade_jax.training.config import MeshConfig, OptimizerConfig, TrainConfig
from spade_jax.training.initial import initial_state, plan, resolve_vocabulary
from spade_jax.training.sharding import make_mesh
from spade_jax.training.step import make_trainer


@pytest.fixture(scope="module")
def run(pretrained):
    return open_run(pretrained, "init_from")


def trainer_of(model):
    return make_trainer(
        builder(model),
        Seq2Seq(),
        OptimizerConfig(warmup_steps=1),
        TrainConfig(steps=9, batch_size=4, seed=5),
        make_mesh(MeshConfig()),
    )


def test_an_equal_model_takes_everything(run):
    trainer = trainer_of(run.model)
    found = plan(run, trainer.state_shapes.params, ())
    assert not found.skipped
    assert not found.new
    state = initial_state(run, found, trainer.state_shapes.params, trainer.init)
    stored = run.checkpoints.restore_params(trainer.state_shapes.params)
    jax.tree.map(np.testing.assert_array_equal, state.params, stored)
    assert int(state.step) == 0


def test_what_the_model_lacks_is_skipped(run):
    tied = trainer_of(dataclasses.replace(run.model, tie_embeddings=True))
    shapes = tied.state_shapes.params
    found = plan(run, shapes, ())
    assert found.skipped == {"output": (384, 16)}
    assert "embedding" in found.loaded
    console = Console(width=100)
    with console.capture() as capture:
        console.print(found.table())
    assert "│ output " in capture.get()
    assert "skipped: not in this model" in capture.get()
    state = initial_state(run, found, shapes, tied.init)
    assert jax.tree.structure(state.params) == jax.tree.structure(shapes)


def test_what_the_checkpoint_lacks_must_be_named(run, monkeypatch):
    stored = run.checkpoints.stored_params(run.step)
    del stored["output"]
    monkeypatch.setattr(run.checkpoints, "stored_params", lambda step: stored)
    trainer = trainer_of(run.model)
    shapes = trainer.state_shapes.params
    with pytest.raises(CheckpointError, match=r"1 of \d+ parameters are not there, such as output"):
        plan(run, shapes, ("decoder/.*",))
    found = plan(run, shapes, ("out.*",))
    assert found.new == {"output": (384, 16)}
    state = initial_state(run, found, shapes, trainer.init)
    # At random as at any start from this seed; all else as it was.
    fresh = trainer.init().params
    np.testing.assert_array_equal(state.params["output"], fresh["output"])
    assert np.any(state.params["embedding"] != fresh["embedding"])


def test_another_shape_is_another_model(run):
    wide = trainer_of(dataclasses.replace(run.model, d_ff=48))
    message = r"parameter decoder/.* is \(32, 16\) there, and must be \(48, 16\)"
    with pytest.raises(CheckpointError, match=message):
        plan(run, wide.state_shapes.params, ())


def test_the_vocabulary_is_the_checkpoints(run):
    task = TaskConfig("rte")
    found = resolve_vocabulary(task, run)
    assert (found.vocabulary, found.extra_ids) == ("bytes", 100)
    with pytest.raises(ConfigError, match=r"task.vocabulary = None: must be set where init_from"):
        resolve_vocabulary(task, None)
    alone = resolve_vocabulary(dataclasses.replace(task, vocabulary="bytes"), None)
    assert alone.extra_ids == 100


def test_a_run_knows_its_best_step(run, pretrained):
    # Pre-training has no best_metric: the newest checkpoint it is.
    assert run.step == 2
    assert run.input_length == 64
    with pytest.raises(ConfigError, match=r"init_from = .*checkpoints': is a folder of chec"):
        open_run(pretrained / "checkpoints", "init_from")
