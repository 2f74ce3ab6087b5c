"""Runs of the program from a pre-trained checkpoint to predictions; stopped, and started again."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from finetune.__main__ import main
from spade_jax.training.workdir import read_metrics

HERE = Path(__file__).parent
MOMENTS = (
    "in the middle of the second evaluation",
    "between two checkpoints",
    "before the results are written",
)


@pytest.fixture(scope="module")
def whole(arguments, tmp_path_factory):
    """A run that was never stopped."""
    workdir = tmp_path_factory.mktemp("whole")
    done = subprocess.run(
        [sys.executable, "-m", "finetune", *arguments, f"--workdir={workdir}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return workdir, done


def predictions(workdir, split):
    lines = (workdir / f"predictions-{split}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def metrics(workdir):
    timing = ("tokens_per_second", "seconds")
    lines = read_metrics(workdir / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in timing} for line in lines]


def final_state(workdir):
    with ocp.StandardCheckpointer() as reader:
        return reader.restore((workdir / "checkpoints" / "12" / "state").absolute())


def test_a_run_says_what_it_does_and_leaves_what_it_should(whole):
    workdir, done = whole
    assert done.stderr == ""
    assert {path.name for path in workdir.iterdir()} == {
        "checkpoints",
        "config.json",
        "loss.png",
        "metrics.jsonl",
        "predictions-test.jsonl",
        "predictions-validation.jsonl",
        "results.json",
        "tensorboard",
    }
    assert "as in the checkpoint" in done.stdout
    assert "at random" not in done.stdout
    assert "25 training examples; 0 inputs are cut off at 48 tokens, 0 targets" in done.stdout
    evaluations = [line for line in metrics(workdir) if line["kind"] == "eval"]
    assert [line["step"] for line in evaluations] == [3, 6, 9, 12]
    assert set(evaluations[0]) == {"kind", "step", "loss", "accuracy", "f1", "score"}


def test_results_are_those_of_the_predictions(whole):
    workdir, done = whole
    results = json.loads((workdir / "results.json").read_text())
    rows = predictions(workdir, "validation")
    assert [row["input"] for row in rows] == [f"which: number {i}" for i in range(30, 39)]
    assert [row["target"] for row in rows] == ["yes", "no", "no"] * 3
    right = np.mean([row["target"] == row["prediction"] for row in rows])
    found = results["splits"]["validation"]
    assert found["examples"] == 9
    assert found["metrics"]["accuracy"] == pytest.approx(right)
    assert found["metrics"]["score"] == pytest.approx(
        (found["metrics"]["accuracy"] + found["metrics"]["f1"]) / 2
    )
    # In training "yes" is the more common one, by one example.
    assert found["baseline"] == {
        "method": "most common target",
        "metrics": {"accuracy": 1 / 3, "f1": 0.5, "score": pytest.approx(5 / 12)},
    }
    assert re.search(rf"accuracy +│ +{100 * right:.2f} │ +33.33 │", done.stdout)
    # A test set without labels has predictions, and no metrics.
    assert "test" not in results["splits"]
    assert [row["target"] for row in predictions(workdir, "test")] == [None] * 3


def test_the_parameters_come_from_the_checkpoint(pretrained, arguments, tmp_path):
    """With a rate of next to nothing, what was pre-trained is what is saved at the end."""
    still = ["--config.optimizer.learning_rate=1e-30", "--config.train.steps=1"]
    still += ["--config.optimizer.warmup_steps=0", "--config.optimizer.weight_decay=0.0"]
    assert main([*arguments, *still, f"--workdir={tmp_path}"]) == 0
    with ocp.StandardCheckpointer() as reader:
        before = reader.restore((pretrained / "checkpoints" / "2" / "state").absolute())
        after = reader.restore((tmp_path / "checkpoints" / "1" / "state").absolute())
    for (path, a), b in zip(
        jax.tree.leaves_with_path(before["params"]), jax.tree.leaves(after["params"]), strict=True
    ):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


def test_a_finished_run_says_so_and_can_be_evaluated_again(whole, arguments, capsys):
    workdir, _ = whole
    files = {path: path.read_bytes() for path in workdir.iterdir() if path.is_file()}
    assert main([*arguments, f"--workdir={workdir}"]) == 0
    said = capsys.readouterr().out
    assert "This run is finished, at step 12." in said
    assert "most common target" in said
    assert main([*arguments, f"--workdir={workdir}", "--config.eval_only=True"]) == 0
    assert "accuracy" in capsys.readouterr().out
    again = json.loads((workdir / "results.json").read_text())
    before = json.loads(files[workdir / "results.json"])
    assert again["step"] == before["step"]
    for split in before["splits"]:
        assert again["splits"][split]["metrics"] == before["splits"][split]["metrics"]
    for path in (workdir / "metrics.jsonl", workdir / "predictions-validation.jsonl"):
        assert path.read_bytes() == files[path]


def test_killed_at_three_moments_it_ends_with_the_same_bits(whole, arguments, tmp_path):
    for moment in MOMENTS:
        killed = subprocess.run(
            [sys.executable, HERE / "killed.py", moment, *arguments, f"--workdir={tmp_path}"],
            capture_output=True,
            text=True,
        )
        assert killed.returncode == -signal.SIGKILL, (moment, killed.stdout, killed.stderr)
        assert not (tmp_path / "results.json").exists()
    assert main([*arguments, f"--workdir={tmp_path}"]) == 0
    one, other = final_state(tmp_path), final_state(whole[0])
    for (path, a), b in zip(jax.tree.leaves_with_path(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))
    assert metrics(tmp_path) == metrics(whole[0])
    for name in ("results.json", "predictions-validation.jsonl", "predictions-test.jsonl"):
        assert (tmp_path / name).read_bytes() == (whole[0] / name).read_bytes()
