import dataclasses
import io
import math
import os
import signal

import jax
import numpy as np
import pytest
from rich.console import Console
from stand_in import VOCAB, StandIn, batch

from spade_jax.objectives.seq2seq import Seq2Seq
from spade_jax.runs.checkpoints import Checkpoints
from spade_jax.runs.workdir import read_metrics
from spade_jax.training import loop, sharding
from spade_jax.training.config import MeshConfig, OptimizerConfig, TrainConfig
from spade_jax.training.divergence import TrainingDiverged
from spade_jax.training.evaluation import evaluate
from spade_jax.training.step import make_trainer

ADAM = OptimizerConfig(learning_rate=1e-2, warmup_steps=2)
TRAIN = TrainConfig(
    steps=12, batch_size=8, eval_every=4, checkpoint_every=5, keep=2, log_every=1, seed=1
)


class Counter:
    """Batches 0, 1, 2 …; the position is the number. Raises SIGTERM with batch `signal_at`."""

    def __init__(self, signal_at=None):
        self.position = 0
        self.signal_at = signal_at

    def __next__(self):
        if self.position == self.signal_at:
            os.kill(os.getpid(), signal.SIGTERM)
        self.position += 1
        return batch(self.position - 1)

    def get_state(self):
        return str(self.position).encode()

    def set_state(self, state):
        self.position = int(state)


def start(workdir, *, signal_at=None, optimizer=ADAM, train=TRAIN, evaluation=None):
    """One start of a run in `workdir`; returns the outcome and what it said."""
    objective = Seq2Seq(token_bytes=np.ones(VOCAB, np.int32))
    trainer = make_trainer(StandIn, objective, optimizer, train, sharding.make_mesh(MeshConfig()))
    data = loop.Data(
        train=Counter(signal_at),
        evaluate=evaluation or (lambda params: evaluate(trainer, params, [batch(100), batch(101)])),
        vocabulary_digest="abc",
        baseline=2.5,
    )
    workdir.mkdir(exist_ok=True)
    screen = io.StringIO()
    checkpoints = Checkpoints(workdir / "checkpoints", train.keep)
    try:
        outcome = loop.train(
            trainer,
            train,
            data,
            checkpoints,
            workdir=workdir,
            settings={"train": {"steps": train.steps}},
            console=Console(file=screen, soft_wrap=True),
        )
    finally:
        checkpoints.close()
    return outcome, screen.getvalue()


def metrics(workdir):
    """The lines of a run without their timing."""
    timing = ("tokens_per_second", "seconds", "goodput", "lost/", "mfu")
    lines = read_metrics(workdir / "metrics.jsonl")
    return [{k: v for k, v in line.items() if not k.startswith(timing)} for line in lines]


def saved_steps(workdir):
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never stopped."""
    workdir = tmp_path_factory.mktemp("whole")
    outcome, screen = start(workdir)
    assert outcome.finished
    assert not outcome.was_finished
    return workdir, outcome, screen


def test_each_step_is_logged_evaluated_and_saved_when_due(whole):
    workdir, outcome, screen = whole
    lines = metrics(workdir)
    assert [line["step"] for line in lines if line["kind"] == "train"] == [*range(1, 13)]
    assert [line["step"] for line in lines if line["kind"] == "eval"] == [4, 8, 12]
    losses = [line["loss"] for line in lines if line["kind"] == "eval"]
    assert losses[0] > losses[1] > losses[2]
    assert outcome.evaluation["loss"] == losses[-1]
    assert saved_steps(workdir) == [10, 12]
    assert (workdir / "loss.png").stat().st_size > 1000
    assert f"step 12/12  validation  loss {losses[-1]:.3f}  accuracy " in screen
    assert "step 12/12  loss" in screen


@pytest.mark.parametrize("signal_at", [0, 3, 7, 11])
def test_a_stopped_run_goes_on_as_if_never_stopped(whole, tmp_path, signal_at):
    before = signal.getsignal(signal.SIGTERM)
    outcome, _ = start(tmp_path, signal_at=signal_at)
    assert (outcome.step, outcome.finished) == (signal_at + 1, False)
    assert saved_steps(tmp_path)[-1] == signal_at + 1
    assert signal.getsignal(signal.SIGTERM) is before
    outcome, screen = start(tmp_path)
    assert f"Going on from the checkpoint of step {signal_at + 1}." in screen
    assert outcome.finished
    for one, other in zip(jax.tree.leaves(outcome.state), jax.tree.leaves(whole[1].state)):
        np.testing.assert_array_equal(one, other)
    assert outcome.evaluation["loss"] == whole[1].evaluation["loss"]
    assert metrics(tmp_path) == metrics(whole[0])


def test_an_old_checkpoint_drops_what_was_done_after_it(whole, tmp_path):
    start(tmp_path, signal_at=6)
    (tmp_path / "checkpoints" / "7" / "position" / "data_0.bin").unlink()
    outcome, screen = start(tmp_path)
    assert "Damaged checkpoint moved aside: " in screen
    assert "Going on from the checkpoint of step 5." in screen
    for one, other in zip(jax.tree.leaves(outcome.state), jax.tree.leaves(whole[1].state)):
        np.testing.assert_array_equal(one, other)
    assert metrics(tmp_path) == metrics(whole[0])


def test_lines_say_how_time_was_spent(whole):
    lines = [line for line in read_metrics(whole[0] / "metrics.jsonl") if line["kind"] == "train"]
    for line in lines:
        shares = [v for name, v in line.items() if name == "goodput" or name.startswith("lost/")]
        assert len(shares) == 7
        assert sum(shares) == pytest.approx(1.0)
        assert all(share >= 0 for share in shares)
    last = lines[-1]
    assert last["tokens_per_second_per_device"] == last["tokens_per_second"] > 0
    # It evaluated and saved on the way.
    assert last["lost/evaluation"] > 0 < last["lost/checkpoint"]


def test_a_finished_run_stays_as_it_is(tmp_path):
    start(tmp_path)
    before = metrics(tmp_path)
    outcome, screen = start(tmp_path)
    assert outcome.was_finished
    assert outcome.finished
    assert outcome.step == 12
    # Rates that look at the number of steps are another run's where it is another one.
    assert "finished, at step 12. For more, raise train.steps, with --extend." in screen
    assert metrics(tmp_path) == before


def test_an_update_that_is_not_finite_stops_before_it_is_saved(tmp_path):
    wild = OptimizerConfig(learning_rate=1e30, schedule="constant", warmup_steps=0)
    config = TrainConfig(**{**vars(TRAIN), "checkpoint_every": 1})
    with pytest.raises(TrainingDiverged, match=r"^step 1: update_norm = inf, .* no checkpoint"):
        start(tmp_path, optimizer=wild, train=config)
    assert not (tmp_path / "checkpoints").exists()


def test_a_loss_that_is_not_finite_stops_and_is_not_saved(tmp_path):
    wild = OptimizerConfig(learning_rate=1e15, schedule="constant", warmup_steps=0)
    config = TrainConfig(**{**vars(TRAIN), "checkpoint_every": 1})
    with pytest.raises(TrainingDiverged) as caught:
        start(tmp_path, optimizer=wild, train=config)
    message = str(caught.value)
    assert message.startswith("step 2: loss = ")
    assert "the last good checkpoint is step 1" in message
    assert "Try a lower optimizer.learning_rate" in message
    assert saved_steps(tmp_path) == [1]
    assert [line["step"] for line in metrics(tmp_path)] == [1]
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()


def start_towards(workdir, top, signal_at=None, **changes):
    """One start of a run whose score rises up to step `top`, and then falls."""
    config = dataclasses.replace(TRAIN, eval_every=1, checkpoint_every=12, keep=1, **changes)
    step = len({line["step"] for line in metrics(workdir)})

    def evaluation(params):
        nonlocal step
        step += 1
        return {"loss": 1.0, "score": -abs(step - top) / 10}

    return start(workdir, signal_at=signal_at, train=config, evaluation=evaluation)


def best(outcome):
    return max(outcome.scores, key=outcome.scores.get)


def test_the_best_checkpoint_stays_beside_the_newest(tmp_path):
    outcome, _ = start_towards(tmp_path, 4, best_metric="score")
    assert (outcome.step, best(outcome)) == (12, 4)
    assert saved_steps(tmp_path) == [4, 12]


def test_a_run_ends_when_nothing_gets_better_and_is_then_finished(tmp_path):
    outcome, _ = start_towards(tmp_path, 4, best_metric="score", patience=3)
    assert (outcome.step, best(outcome), outcome.finished) == (7, 4, True)
    assert saved_steps(tmp_path) == [4, 7]
    again, _ = start_towards(tmp_path, 4, best_metric="score", patience=3)
    assert (again.step, best(again), again.was_finished) == (7, 4, True)
    assert len(metrics(tmp_path)) == 14


def test_patience_survives_a_stop(tmp_path):
    outcome, _ = start_towards(tmp_path, 4, signal_at=4, best_metric="score", patience=3)
    assert (outcome.step, outcome.finished) == (5, False)
    outcome, _ = start_towards(tmp_path, 4, best_metric="score", patience=3)
    assert (outcome.step, best(outcome), outcome.finished) == (7, 4, True)
    assert saved_steps(tmp_path) == [4, 7]


def test_a_metric_that_is_always_the_same_is_said_and_ends_nothing(tmp_path):
    config = dataclasses.replace(
        TRAIN, eval_every=2, checkpoint_every=12, keep=1, best_metric="score", patience=2
    )
    same = {"loss": 1.0, "score": 0.0}
    outcome, screen = start(tmp_path, train=config, evaluation=lambda params: same)
    assert (outcome.step, outcome.finished) == (12, True)
    assert outcome.scores == dict.fromkeys(range(2, 13, 2), 0.0)
    assert screen.count("score is 0.000 at both evaluations: as long as it is the same") == 1


def test_nan_at_the_first_evaluation_does_not_stay_the_best(tmp_path):
    config = dataclasses.replace(
        TRAIN, eval_every=2, checkpoint_every=12, keep=1, best_metric="score", patience=3
    )
    scores = iter([math.nan, 0.1, 0.3, 0.2, 0.2, 0.2])
    outcome, _ = start(
        tmp_path, train=config, evaluation=lambda params: {"loss": 1.0, "score": next(scores)}
    )
    assert outcome.step == 12
    assert saved_steps(tmp_path) == [6, 12]


def test_scores_are_known_without_the_metrics_file(tmp_path):
    """As where checkpoints/ alone was copied: the best checkpoint is not given up."""
    config = dataclasses.replace(TRAIN, eval_every=2, keep=1, best_metric="score")
    scores = iter([0.1, 0.3, 0.2, 0.2, 0.2, 0.2, 0.2])

    def evaluation(params):
        return {"loss": 1.0, "score": next(scores)}

    outcome, _ = start(tmp_path, signal_at=6, train=config, evaluation=evaluation)
    assert (outcome.step, saved_steps(tmp_path)) == (7, [4, 7])
    (tmp_path / "metrics.jsonl").unlink()
    outcome, _ = start(tmp_path, train=config, evaluation=evaluation)
    assert outcome.scores == {2: 0.1, 4: 0.3, 6: 0.2, 8: 0.2, 10: 0.2, 12: 0.2}
    assert saved_steps(tmp_path) == [4, 12]
