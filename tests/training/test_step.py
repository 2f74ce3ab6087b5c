import functools

import jax
import numpy as np
import pytest
from stand_in import StandIn, batch

from spade_jax.config import ConfigError
from spade_jax.objectives.config import LossConfig
from spade_jax.objectives.seq2seq import Seq2Seq
from spade_jax.objectives.tokens import token_losses
from spade_jax.ops.token_scores import scores_of_logits
from spade_jax.training import sharding
from spade_jax.training.config import MeshConfig, OptimizerConfig, TrainConfig
from spade_jax.training.step import make_trainer
from spade_jax.trees import paths

ADAM = OptimizerConfig(learning_rate=1e-2, warmup_steps=2)
PLAIN = LossConfig()


def make(optimizer=ADAM, loss=PLAIN, create=StandIn, **train):
    config = TrainConfig(**{"steps": 10, "batch_size": 8, **train})
    mesh = sharding.make_mesh(MeshConfig())
    return make_trainer(create, Seq2Seq(loss), optimizer, config, mesh)


def train(trainer, steps=3):
    state = trainer.init()
    history = []
    for step in range(steps):
        state, metrics = trainer.train_step(state, sharding.place(batch(step), trainer.mesh))
        history.append({name: float(value) for name, value in metrics.items()})
    return state, history


def test_metrics_are_means_over_target_tokens():
    trainer = make(loss=LossConfig(z_loss=1e-2))
    state = trainer.init()
    data = batch(0)
    sums = trainer.eval_step(state.params, sharding.place(data, trainer.mesh))
    logits = trainer.model(state.params)(
        data["encoder_input_tokens"],
        data["decoder_input_tokens"],
        encoder_segment_ids=(data["encoder_input_tokens"] != 0).astype(int),
    )
    counts = data["decoder_target_tokens"] > 0
    scores = scores_of_logits(logits, data["decoder_target_tokens"])
    loss, z_loss = token_losses(scores, LossConfig(z_loss=1e-2))
    right = np.argmax(logits, -1) == data["decoder_target_tokens"]
    assert int(sums.tokens) == counts.sum()
    np.testing.assert_allclose(sums.loss, np.asarray(loss)[counts].sum(), rtol=1e-5)
    _, metrics = trainer.train_step(state, sharding.place(data, trainer.mesh))
    assert int(metrics["tokens"]) == counts.sum()
    np.testing.assert_allclose(metrics["loss"], np.asarray(loss)[counts].mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["z_loss"], np.asarray(z_loss)[counts].mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], right[counts].mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics["learning_rate"], 5e-3, rtol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_accumulation_is_one_batch_although_token_counts_differ(name):
    optimizer = OptimizerConfig(name=name, learning_rate=1e-2, warmup_steps=2)
    loss = LossConfig(z_loss=1e-3, label_smoothing=0.1)
    whole, history = train(make(optimizer, loss))
    parts, history_of_parts = train(make(optimizer, loss, microbatches=4))
    counts = [(batch(0)["decoder_target_tokens"][i::4] > 0).sum() for i in range(4)]
    assert len(set(counts)) > 1
    for one, other in zip(history, history_of_parts):
        for metric in one:
            np.testing.assert_allclose(other[metric], one[metric], rtol=1e-5, err_msg=metric)
    for param, value in paths(whole.params).items():
        np.testing.assert_allclose(paths(parts.params)[param], value, rtol=1e-5, atol=1e-7)


def test_frozen_parameters_stay_and_are_not_differentiated():
    frozen = OptimizerConfig(
        learning_rate=1e-2, warmup_steps=2, learning_rates=((".*ssm.*", 0.0), (".*", None))
    )
    trainer = make(frozen)
    assert trainer.trainable == {"embedding", "layers", "norm"}
    before = paths(jax.tree.map(np.array, trainer.init().params))
    state, _ = train(trainer)
    after = paths(state.params)
    np.testing.assert_array_equal(after["ssm_a"], before["ssm_a"])
    assert np.abs(after["norm"] - before["norm"]).min() > 0
    flops = [
        make(config)
        .train_step.lower(trainer.state_shapes if config is frozen else shapes, batch(0))
        .compile()
        .cost_analysis()["transcendentals"]
        for config, shapes in ((frozen, None), (ADAM, make(ADAM).state_shapes))
    ]
    assert flops[0] < flops[1]


def test_dropout_differs_by_step_and_repeats_by_seed():
    create = functools.partial(StandIn, dropout_rate=0.5)
    still = OptimizerConfig(learning_rate=1e-30, schedule="constant", warmup_steps=0)

    def losses(seed):
        trainer = make(still, create=create, seed=seed, microbatches=2)
        state = trainer.init()
        found = []
        for _ in range(2):
            state, metrics = trainer.train_step(state, sharding.place(batch(0), trainer.mesh))
            found.append(float(metrics["loss"]))
        return found

    first = losses(0)
    assert first == losses(0)
    assert first[0] != first[1]
    assert first != losses(1)


def test_the_step_compiles_once_and_donates_the_state():
    trainer = make()
    state = trainer.init()
    for step in range(3):
        before = state
        state, _ = trainer.train_step(state, sharding.place(batch(step), trainer.mesh))
    assert trainer.train_step._cache_size() == 1
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params))
    assert int(state.step) == 3


def test_a_table_that_does_not_fit_is_rejected_before_compilation():
    with pytest.raises(ConfigError, match=r"'decoder/.\*': matches no parameter"):
        make(OptimizerConfig(learning_rates=(("decoder/.*", 0.0), (".*", None))))
