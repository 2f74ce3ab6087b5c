"""A run that goes on differently, on purpose."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

import spade_jax
from pretrain.__main__ import main
from spade_jax.runs.open import open_run
from spade_jax.runs.workdir import read_metrics

CONFIG = f"--config={Path(__file__).parent / 'miniature_lm.py'}"
SETTINGS = [CONFIG, "--config.samples=0", "--config.train.eval_batches=1"]


def assert_same(one, other, rtol=0.0):
    states = (jax.tree.leaves(nnx.state(spade_jax.load(run).model)) for run in (one, other))
    for a, b in zip(*states, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(b).max())


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run of two updates, whose rate falls to its end."""
    workdir = tmp_path_factory.mktemp("begun")
    arguments = [*SETTINGS, f"--workdir={workdir}", "--config.train.steps=2"]
    assert main([*arguments, "--config.optimizer.schedule=linear"]) == 0
    return workdir


@pytest.mark.parametrize(
    "lengths",
    [pytest.param((4,), id="once"), pytest.param((4, 6), id="twice", marks=pytest.mark.slow)],
)
def test_made_longer_it_equals_one_that_was_so_long(lengths, tmp_path):
    """With a schedule that is the same for any length."""
    flat = [*SETTINGS, "--config.optimizer.schedule=cosine_restarts"]
    flat += ["--config.optimizer.period=100"]
    longer, whole = tmp_path / "longer", tmp_path / "whole"
    assert main([*flat, f"--workdir={longer}", "--config.train.steps=2"]) == 0
    for steps in lengths:
        command = [*flat, f"--workdir={longer}", f"--config.train.steps={steps}"]
        assert main(command) == 2
        assert main([*command, "--extend"]) == 0
        assert main(command) == 0  # It is this run now.
    assert main([*flat, f"--workdir={whole}", f"--config.train.steps={lengths[-1]}"]) == 0
    assert_same(longer, whole)
    lines = read_metrics(longer / "metrics.jsonl")
    changes = [(line["step"], line["changes"]) for line in lines if line["kind"] == "change"]
    pairs = [*zip((2, *lengths), lengths)]
    assert changes == [(before, {"train.steps": [before, after]}) for before, after in pairs]
    about = open_run(longer, "workdir").checkpoints.about()
    assert [entry["step"] for entry in about["history"]] == [before for before, _ in pairs]
    assert about["settings"]["train"]["steps"] == lengths[-1]


@pytest.mark.slow
def test_a_rate_that_is_changed_equals_a_schedule_that_falls_there(tmp_path):
    """Cosines with restarts whose every period is two updates of half the rate, flat within."""
    restarts = ["--config.optimizer.schedule=cosine_restarts", "--config.optimizer.period=2"]
    restarts += ["--config.optimizer.final_fraction=1", "--config.optimizer.period_shrink=0.5"]
    scheduled, changed = tmp_path / "scheduled", tmp_path / "changed"
    rate = "--config.optimizer.learning_rate="
    whole = [*SETTINGS, *restarts, f"{rate}2e-3", f"--workdir={scheduled}"]
    assert main([*whole, "--config.train.steps=4"]) == 0
    part = [*SETTINGS, f"--workdir={changed}"]
    assert main([*part, f"{rate}2e-3", "--config.train.steps=2"]) == 0
    assert main([*part, f"{rate}1e-3", "--config.train.steps=4", "--extend"]) == 0
    # Half of a rate, or a rate of half.
    assert_same(scheduled, changed, rtol=1e-6)


def test_other_data_begins_anew_and_all_else_goes_on(begun, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(begun, workdir)
    before = spade_jax.load(workdir)
    command = [*SETTINGS, f"--workdir={workdir}", "--config.train.steps=3", "--extend"]
    command += ["--config.data.input_length=32", "--config.train.batch_size=2"]
    command += ["--config.optimizer.clip_norm=None", "--config.optimizer.weight_decay=0.5"]
    assert main(command) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "From here on train.batch_size was 4 and is 2; data.input_length was 64" in printed
    assert "; its data begins anew." in printed
    after = spade_jax.load(workdir)
    assert (before.step, after.step) == (2, 3)
    settings = json.loads((workdir / "config.json").read_text())
    assert settings["train"]["batch_size"] == 2
    assert (workdir / "loss.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["--config.train.seed=5"], "; use the same settings, another workdir, or --extend to go"),
        (
            ["--config.model.d_ff=48", "--extend"],
            "model.d_ff was 32 and is 48; use the same settings, or another workdir, where "
            "--config.init_from=",
        ),
        (["--config.optimizer.name=nag", "--extend"], "optimizer.name was 'adamw' and is 'nag'"),
    ],
)
def test_what_is_not_on_purpose_or_makes_another_run_is_refused(begun, settings, message, capsys):
    before = {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()}
    arguments = [*SETTINGS, f"--workdir={begun}", "--config.train.steps=2"]
    assert main([*arguments, "--config.optimizer.schedule=linear", *settings]) == 2
    assert message in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()}
