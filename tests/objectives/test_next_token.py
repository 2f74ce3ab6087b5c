"""An objective in one file is trained, evaluated, gone on with, compiled and measured as any is."""

import io

import jax
import numpy as np
import pytest
from next_token import NextToken, TextConfig
from rich.console import Console

from benchmarks.train_step import measured
from spade_jax.aot.compiled import compile_step
from spade_jax.config import (
    AttentionConfig,
    ConfigError,
    EncoderDecoderConfig,
    StackConfig,
)
from spade_jax.mixers import Window
from spade_jax.models.build import builder
from spade_jax.models.presets import preset
from spade_jax.objectives.seq2seq import Seq2Seq
from spade_jax.runs.checkpoints import Checkpoints
from spade_jax.runs.workdir import read_metrics
from spade_jax.training import loop
from spade_jax.training.config import MeshConfig, OptimizerConfig, TrainConfig
from spade_jax.training.evaluation import evaluate
from spade_jax.training.sharding import make_mesh
from spade_jax.training.step import make_trainer

ROWS, LENGTH = 8, 12
MODEL = TextConfig(
    EncoderDecoderConfig(
        vocab_size=16,
        d_model=8,
        d_ff=16,
        encoder=StackConfig("window"),
        decoder=StackConfig("window"),
        mixers={"window": Window(3)},
        attention=AttentionConfig(num_heads=2, num_buckets=8, max_distance=16),
        dropout_rate=0.1,
    )
)
OPTIMIZER = OptimizerConfig(learning_rate=1e-2, schedule="constant", warmup_steps=1)
TRAIN = TrainConfig(
    steps=8, batch_size=ROWS, microbatches=2, eval_every=4, checkpoint_every=3, log_every=1
)


def trainer():
    return make_trainer(builder(MODEL), NextToken(), OPTIMIZER, TRAIN, make_mesh(MeshConfig()))


class Text:
    """Rows that count up from a random token, of random lengths; the position is the step."""

    def __init__(self):
        self.step = 0

    def __next__(self):
        rng = np.random.default_rng(self.step)
        self.step += 1
        text = 1 + (rng.integers(0, 15, (ROWS, 1)) + np.arange(LENGTH)) % 15
        lengths = rng.integers(2, LENGTH + 1, (ROWS, 1))
        return {"text": np.where(np.arange(LENGTH) < lengths, text, 0).astype(np.int32)}

    def get_state(self):
        return str(self.step).encode()

    def set_state(self, state):
        self.step = int(state)


def run(workdir, steps=TRAIN.steps):
    """One start, ended after so many steps; returns the outcome and the lines of the run."""
    held_out = Text()
    held_out.step = 1000
    parts = [{"text": rows["text"][: ROWS // 2]} for rows in (next(held_out), next(held_out))]
    own = trainer()
    config = TrainConfig(**{**vars(TRAIN), "steps": steps})
    data = loop.Data(Text(), lambda params: evaluate(own, params, parts), "")
    workdir.mkdir(exist_ok=True)
    checkpoints = Checkpoints(workdir / "checkpoints", keep=1)
    console = Console(file=io.StringIO())
    try:
        outcome = loop.train(
            own, config, data, checkpoints, workdir=workdir, settings={}, console=console
        )
    finally:
        checkpoints.close()
    lines = read_metrics(workdir / "metrics.jsonl")
    return outcome, {(line["kind"], line["step"]): line for line in lines}


def test_it_learns_and_goes_on_where_it_stopped(tmp_path):
    whole, lines = run(tmp_path / "whole")
    losses = [lines["train", step]["loss"] for step in range(1, 9)]
    assert losses[0] == pytest.approx(np.log(16), abs=0.3)
    assert losses[-1] < losses[0] - 0.2
    assert lines["eval", 8]["loss"] < lines["eval", 4]["loss"]
    assert lines["train", 1]["tokens"] == np.count_nonzero(next(Text())["text"])
    assert lines["train", 8]["tokens_per_second"] > 0

    run(tmp_path / "parts", steps=5)
    parts, again = run(tmp_path / "parts")
    for one, other in zip(jax.tree.leaves(parts.state), jax.tree.leaves(whole.state), strict=True):
        np.testing.assert_array_equal(one, other)
    assert again["eval", 8]["loss"] == lines["eval", 8]["loss"]


def test_it_is_compiled_and_measured():
    mesh = make_mesh(MeshConfig())
    report = compile_step(MODEL, NextToken(), OPTIMIZER, TRAIN, (LENGTH,), mesh)
    formula = NextToken().flops(MODEL, ROWS, (LENGTH,))
    assert report.formula_flops == formula
    assert report.flops == pytest.approx(formula, rel=0.2)
    cells = measured(trainer(), MODEL, ROWS, (LENGTH,), peak=1e12, repeats=1)
    assert cells[0] == "8 x (12)"
    with pytest.raises(ConfigError, match=r"^part = 'encoder': must be one of .?step"):
        compile_step(MODEL, NextToken(), OPTIMIZER, TRAIN, (LENGTH,), mesh, part="encoder")


def test_a_model_of_another_kind_is_refused():
    mesh = make_mesh(MeshConfig())
    with pytest.raises(
        ConfigError, match=r"^model = 'TextConfig': must be of EncoderDecoderConfig, .*Seq2Seq"
    ):
        Seq2Seq().check(MODEL, (LENGTH, 4), mesh)
    with pytest.raises(
        ConfigError, match=r"^model = 'EncoderDecoderConfig': must be of TextConfig"
    ):
        NextToken().check(preset("tiny"), (LENGTH,), mesh)
