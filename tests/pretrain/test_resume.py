"""Runs of the program as a process of its own, stopped in every way and started again."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from pretrain.__main__ import main as pretrain
from spade_jax.data.cache.__main__ import main as build
from spade_jax.runs.workdir import read_metrics, read_samples

HERE = Path(__file__).parent
CONFIG = HERE / "miniature.py"
MOMENTS = (
    "before the first step is recorded",
    "in the middle of a line",
    "at the end of an evaluation",
    "between two files of a save",
    "when the last save has begun",
)


def command(workdir, *program):
    return [sys.executable, *program, f"--config={CONFIG}", f"--workdir={workdir}"]


def start(workdir, *program, env=None):
    return subprocess.run(
        command(workdir, *(program or ("-m", "pretrain"))),
        capture_output=True,
        text=True,
        env=env,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never stopped."""
    workdir = tmp_path_factory.mktemp("whole")
    done = start(workdir)
    assert done.returncode == 0, done.stderr
    return workdir, done


def metrics(workdir):
    timing = ("tokens_per_second", "seconds", "goodput", "lost/", "mfu")
    lines = read_metrics(workdir / "metrics.jsonl")
    return [{k: v for k, v in line.items() if not k.startswith(timing)} for line in lines]


def final_state(workdir):
    with ocp.StandardCheckpointer() as reader:
        return reader.restore((workdir / "checkpoints" / "24" / "state").absolute())


def assert_same_end(workdir, whole):
    one, other = final_state(workdir), final_state(whole)
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for (path, a), b in zip(jax.tree.leaves_with_path(one), jax.tree.leaves(other)):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))
    assert metrics(workdir) == metrics(whole)
    assert read_samples(workdir) == read_samples(whole)


def test_a_run_says_what_it_does_and_leaves_what_it_should(whole):
    workdir, done = whole
    assert {p.name for p in workdir.iterdir()} == {
        "checkpoints",
        "config.json",
        "facts.json",
        "loss.png",
        "metrics.jsonl",
        "metrics.png",
        "report.html",
        "results.json",
        "samples.jsonl",
        "tensorboard",
    }
    assert done.stderr == ""
    assert re.search(r"total +│ +[\d,]+ │ +[\d.]+ KiB", done.stdout)
    assert re.search(r"step 24/24  loss \d+\.\d+  [\d,]+ tokens/s  0:00 left", done.stdout)
    assert re.search(
        r"Held-out passage 1\n  masked  .*\[…\].*\n  truth   .*\n  model   ", done.stdout
    )
    assert re.search(
        r"validation loss \d+\.\d+ nats .* the unigram distribution .* has \d+\.\d+", done.stdout
    )
    lines = metrics(workdir)
    assert [line["step"] for line in lines if line["kind"] == "train"] == [*range(1, 25)]
    losses = [line["loss"] for line in lines if line["kind"] == "eval"]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    found = read_samples(workdir)
    assert [line["step"] for line in found] == [6, 12, 18, 24]
    assert len({(line["input"], line["target"]) for line in found}) == 1
    # What the end shows whole, the last evaluation shows on a line each.
    assert f"  masked  {found[-1]['input']}\n" in done.stdout
    assert f"  model   {found[-1]['prediction']}"[:79] in done.stdout
    results = json.loads((workdir / "results.json").read_text())
    assert results["splits"]["validation"]["metrics"]["loss"] == losses[-1]
    assert results["splits"]["validation"]["baseline"]["metrics"].keys() == {"loss"}
    written = (workdir / "report.html").read_text()
    assert "Pre-training · " in written
    assert "Samples during training" in written


@pytest.mark.parametrize(
    "moments",
    [
        pytest.param((MOMENTS[1], MOMENTS[4]), id="two"),
        pytest.param(MOMENTS, id="five", marks=pytest.mark.slow),
    ],
)
def test_killed_again_and_again_it_ends_with_the_same_bits(whole, tmp_path, moments):
    """Each start finds what the one before compiled, in the workdir."""
    own = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    for moment in moments:
        killed = start(tmp_path, str(HERE / "killed.py"), moment, env=own)
        assert killed.returncode == -signal.SIGKILL, (moment, killed.stdout, killed.stderr)
        (step,) = (tmp_path / "compiled").glob("jit_train_step-*")
        if moment == "between two files of a save":
            assert [p.name for p in (tmp_path / "checkpoints").glob("16*")] == [
                "16.orbax-checkpoint-tmp"
            ]
    done = start(tmp_path, env=own | {"JAX_LOG_COMPILES": "1"})
    assert done.returncode == 0, done.stderr
    assert "Going on from the checkpoint of step 20." in done.stdout
    assert "Persistent compilation cache hit for 'jit_train_step'" in done.stderr
    assert [*(tmp_path / "compiled").glob("jit_train_step-*")] == [step]
    assert_same_end(tmp_path, whole[0])


def test_sigterm_saves_a_full_disk_keeps_it_and_the_run_goes_on(whole, tmp_path):
    process = subprocess.Popen(
        command(tmp_path, "-m", "pretrain"), stdout=subprocess.PIPE, text=True
    )
    while len(read_metrics(tmp_path / "metrics.jsonl")) < 2:
        time.sleep(0.01)
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate()
    assert process.returncode == 0
    stopped_at = int(re.search(r"Stopped and saved at step (\d+)", said).group(1))
    assert stopped_at < 24

    # No file can grow beyond 16 blocks of 512 bytes.
    full = subprocess.run(
        ["sh", "-c", 'ulimit -f 16 && exec "$@"', "sh", *command(tmp_path, "-m", "pretrain")],
        capture_output=True,
        text=True,
    )
    assert full.returncode == 1, full.stderr
    assert re.fullmatch(r"error: .*File too large.*\n", full.stderr)
    assert (tmp_path / "checkpoints" / str(stopped_at) / "position").is_dir()

    done = start(tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"Going on from the checkpoint of step {stopped_at}." in done.stdout
    assert_same_end(tmp_path, whole[0])


def test_a_run_on_a_cache_goes_on_with_the_same_batches(tmp_path):
    (tmp_path / "text.txt").write_text("The state of the union is strong. It is at peace.\n" * 300)
    (tmp_path / "held_out.txt").write_text("Commerce, and the treaties of all rivers.\n" * 50)
    options = [
        f"--config={CONFIG}",
        "--config.data.sources.0.kind=text",
        f"--config.data.sources.0.train={tmp_path}/text.txt",
        f"--config.data.sources.0.validation={tmp_path}/held_out.txt",
    ]
    assert build([*options, f"--output={tmp_path}/cache", "--shards=2", "--workers=1"]) == 0
    workdir = tmp_path / "run"
    options += [f"--workdir={workdir}", f"--config.data.cache={tmp_path}/cache"]
    options += ["--config.train.checkpoint_every=18", "--config.train.eval_every=24"]
    options += ["--config.samples=0"]
    assert pretrain(options) == 0
    never_stopped = metrics(workdir)
    shutil.rmtree(workdir / "checkpoints" / "24")
    assert pretrain(options) == 0
    assert len(never_stopped) == 25
    assert metrics(workdir) == never_stopped
