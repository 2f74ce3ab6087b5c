"""Statistics of a batch go with the train state: through microbatches, devices and checkpoints."""

from pathlib import Path

import jax
import numpy as np
from stand_in import Normed, StandIn, batch

from spade_jax.objectives.seq2seq import Seq2Seq
from spade_jax.runs.checkpoints import Checkpoints
from spade_jax.training import sharding
from spade_jax.training.config import MeshConfig, OptimizerConfig, TrainConfig
from spade_jax.training.step import make_trainer
from spade_jax.trees import paths


def trainer_of(create=Normed, **train):
    # A pattern that matches everything moves no statistic.
    optimizer = OptimizerConfig(warmup_steps=0, learning_rates=((".*", 1e-2),))
    config = TrainConfig(**{"steps": 10, "batch_size": 8, **train})
    return make_trainer(create, Seq2Seq(), optimizer, config, sharding.make_mesh(MeshConfig()))


def test_an_update_measures_each_microbatch_after_the_other(tmp_path):
    trainer = trainer_of(microbatches=2)
    assert trainer.trainable == {"norm/scale", "norm/bias"} | {
        f"inner/{name}" for name in ("embedding", "ssm_a", "layers", "norm")
    }
    state, data = trainer.init(), batch(0)
    inner = trainer_of(StandIn).model(jax.tree.map(np.array, state.params["inner"]))
    mean, variance = np.zeros(16), np.ones(16)
    for part in range(2):
        rows = {name: array[part::2] for name, array in data.items()}
        counts = rows["decoder_target_tokens"] != 0
        logits = inner(
            rows["encoder_input_tokens"],
            rows["decoder_input_tokens"],
            encoder_segment_ids=rows["encoder_input_tokens"] != 0,
        )
        seen = np.asarray(logits)[counts]
        mean = 0.9 * mean + 0.1 * seen.mean(0)
        variance = 0.9 * variance + 0.1 * seen.var(0, ddof=1)
    state, _ = trainer.train_step(state, sharding.place(data, trainer.mesh))
    np.testing.assert_allclose(state.params["norm"]["mean"], mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(state.params["norm"]["variance"], variance, rtol=1e-4)

    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, state, lambda: b"", {"settings": {}, "vocabulary": "abc"})
    checkpoints.wait()
    restored, _ = Checkpoints(tmp_path, keep=1).restore(trainer.state_shapes)
    jax.tree.map(np.testing.assert_array_equal, restored.params, state.params)


def test_what_is_held_out_is_measured_by_the_running_statistics():
    trainer = trainer_of()
    params = jax.tree.map(np.array, trainer.init().params)

    def loss(data):
        sums = trainer.eval_step(params, sharding.place(data, trainer.mesh))
        return float(sums.loss), int(sums.tokens)

    data = batch(0)
    (all_loss, tokens), halves = (
        loss(data),
        [
            {
                name: np.where((np.arange(8) % 2 == half)[:, None], array, 0)
                for name, array in data.items()
            }
            for half in range(2)
        ],
    )
    # Which rows are together does not matter.
    parts = [loss(half) for half in halves]
    assert sum(count for _, count in parts) == tokens
    np.testing.assert_allclose(sum(part for part, _ in parts), all_loss, rtol=1e-5)


def test_eight_devices_measure_what_one_measures(on_eight_devices):
    report = on_eight_devices(Path(__file__).with_name("eight_devices_statistics.py"))
    assert len(report) == 2
    for errors in report:
        assert max(errors.values()) < 1e-5, errors
        assert {"norm/mean", "norm/variance", "inner/layers"} <= errors.keys()


def test_the_statistics_are_placed_as_parameters_are():
    shapes = paths(trainer_of().state_shapes.params)
    assert shapes["norm/mean"].shape == shapes["norm/variance"].shape == (16,)
    assert shapes["norm/mean"].sharding == shapes["norm/bias"].sharding
