"""Fine-tuning as two processes on loopback."""

import json
import os
import re
import signal
import subprocess

import pytest
from several_processes import command

from spade_jax.runs.workdir import read_metrics


@pytest.mark.slow
def test_two_processes_that_were_stopped_end_as_one_does(arguments, tmp_path, start_processes):
    settings = [*arguments, "--config.train.steps=60", "--config.train.eval_every=30"]
    settings += ["--config.train.checkpoint_every=30", "--config.train.best_metric=loss"]
    settings += ["--config.optimizer.learning_rate=0.03"]
    # Four of five say "yes", so that rounding does not decide which label the model prefers.
    table = tmp_path / "train.jsonl"
    rows = ({"text": f"number {i}", "label": "yes" if i % 5 else "no"} for i in range(25))
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings += [f"--config.task.train={table}"]
    one, two = tmp_path / "one", tmp_path / "two"
    done = subprocess.run(
        command("finetune", f"--workdir={one}", *settings, processes=1),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    run = start_processes("finetune", two, *settings).at_step(3)
    os.kill(run.worker(1), signal.SIGTERM)
    status, said = run.end()
    assert status == 0, said
    stopped_at = int(re.search(r"Stopped and saved at step (\d+);", said)[1])
    assert stopped_at < 60
    assert not (two / "results.json").exists()
    status, said = start_processes("finetune", two, *settings).end()
    assert status == 0, said
    assert f"Going on from the checkpoint of step {stopped_at}." in said
    names = ("loss", "accuracy", "f1", "score", "tokens", "grad_norm")
    expected, found = (
        {
            (line["kind"], line["step"], name): line[name]
            for line in read_metrics(workdir / "metrics.jsonl")
            for name in names
            if name in line
        }
        for workdir in (one, two)
    )
    assert len(expected) == 4 * 60 + 4 * 2
    assert found == pytest.approx(expected, rel=1e-4)
    assert '"prediction": "yes"' in (one / "predictions-validation.jsonl").read_text()
    for name in ("predictions-validation.jsonl", "predictions-test.jsonl"):
        assert (two / name).read_text() == (one / name).read_text()
    # Of the sums, which devices add up as they come, all but rounding is the same.
    expected, found = (json.loads((workdir / "results.json").read_text()) for workdir in (one, two))
    expected_metrics, metrics = (
        results["splits"]["validation"].pop("metrics") for results in (expected, found)
    )
    assert metrics == pytest.approx(expected_metrics, rel=1e-4)
    assert found == expected
