"""Several processes on loopback, started by the launch script."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from several_processes import command

from spade_jax.config import ConfigError
from spade_jax.config.hosts import HostsConfig
from spade_jax.data.cache.__main__ import main as build
from spade_jax.runs.workdir import read_metrics

MINIATURE = Path(__file__).with_name("miniature.py")
LONG = ["--config.train.steps=5000", "--config.train.checkpoint_every=10"]


MINIATURE_RUN = [f"--config={MINIATURE}", "--config.samples=0"]


@pytest.fixture
def start(start_processes):
    """Starts runs of two processes, of which none outlives the test."""

    def begin(workdir, *options):
        return start_processes("pretrain", workdir, *MINIATURE_RUN, *options)

    return begin


def newest(workdir):
    return max(int(path.name) for path in (workdir / "checkpoints").iterdir())


@pytest.mark.slow
def test_a_signal_at_one_process_stops_all_and_they_go_on(tmp_path, start):
    run = start(tmp_path, *LONG).at_step(15)
    os.kill(run.worker(1), signal.SIGTERM)
    status, said = run.end()
    assert status == 0, said
    stopped_at = int(re.search(r"Stopped and saved at step (\d+);", said)[1])
    assert newest(tmp_path) == stopped_at
    run = start(tmp_path, *LONG).at_step(stopped_at + 3)
    run.process.send_signal(signal.SIGTERM)  # to the launcher, which passes it on
    status, said = run.end()
    assert status == 0, said
    assert f"Going on from the checkpoint of step {stopped_at}." in said
    steps = [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")]
    trained = sorted({*steps})
    assert trained == list(range(1, trained[-1] + 1))


@pytest.mark.slow
def test_a_lost_process_ends_the_run_and_the_next_one_goes_on(tmp_path, start):
    run = start(tmp_path, *LONG).at_step(25)
    os.kill(run.worker(1), signal.SIGKILL)
    begin = time.monotonic()
    status, said = run.end()
    assert status == 1
    assert time.monotonic() - begin < 60
    assert "error: process 1 of 2 ended with SIGKILL; the others are stopped" in said
    saved = newest(tmp_path)
    assert saved >= 10
    run = start(tmp_path, *LONG).at_step(saved + 3)
    run.process.send_signal(signal.SIGINT)
    status, said = run.end()
    assert status == 0, said
    assert f"Going on from the checkpoint of step {saved}." in said


@pytest.mark.slow
def test_any_number_of_processes_learns_the_same_from_a_cache(tmp_path, start):
    """One process; and two, which are stopped, with four that go on: batch by batch the same."""
    cache = tmp_path / "cache"
    assert build([f"--config={MINIATURE}", f"--output={cache}", "--shards=2", "--workers=1"]) == 0
    settings = [f"--config.data.cache={cache}", "--config.train.steps=40"]
    settings += ["--config.train.checkpoint_every=20", "--config.train.eval_every=20"]
    one, many = tmp_path / "one", tmp_path / "many"
    done = subprocess.run(
        command("pretrain", f"--workdir={one}", *MINIATURE_RUN, *settings, processes=1),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    run = start(many, *settings).at_step(5)
    run.process.send_signal(signal.SIGTERM)
    assert run.end()[0] == 0
    assert newest(many) < 40
    done = subprocess.run(
        command("pretrain", f"--workdir={many}", *MINIATURE_RUN, *settings, processes=4),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr

    def seen(workdir, *names):
        return {
            (line["kind"], line["step"], name): line[name]
            for line in read_metrics(workdir / "metrics.jsonl")
            for name in names
            if name in line
        }

    batches = seen(one, "batch_digest")
    assert len({*batches.values()}) == 40
    assert seen(many, "batch_digest") == batches
    names = ("loss", "accuracy", "bits_per_byte", "tokens")
    expected = seen(one, *names)
    assert len(expected) == 3 * 40 + 4 * 2
    assert seen(many, *names) == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_processes_that_differ_in_their_configuration(tmp_path):
    """Started by hand, as on machines that were not set up alike."""
    own = ["pretrain", *MINIATURE_RUN, f"--workdir={tmp_path}"]
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    port = 20000 + os.getpid() % 20000
    started = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", *own, f"--coordinator=127.0.0.1:{port}", "--processes=2"),
                # The mesh of process 1 alone would not fit the four devices.
                *(f"--process={process}", f"--config.mesh.data={2 + process}"),
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    for process in started:
        _, said = process.communicate(timeout=200)
        assert process.returncode == 2, said
        assert "error: configuration: differs between process 0 and process 1; must be the" in said
    assert not (tmp_path / "checkpoints").exists()


def test_a_coordinator_that_nobody_else_reaches(tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pretrain", f"--config={MINIATURE}", f"--workdir={tmp_path}"),
            *("--coordinator=127.0.0.1:9", "--processes=2", "--process=1", "--timeout=2"),
        ],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: coordinator = 127.0.0.1:9: not all processes met there within 2 s (process 1 of "
        "2); must be an address of process 0 that all others reach"
    )
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"coordinator": "a:1"}, "--coordinator = 'a:1': must come with --processes and"),
        ({"coordinator": "a", "processes": 2, "process": 0}, "must be HOST:PORT"),
        (
            {"coordinator": "a:1", "processes": 2, "process": 2},
            "--process = 2: must be from 0 to 1",
        ),
        ({"timeout": 0.0}, "--timeout = 0.0: must be at least 0.001"),
    ],
)
def test_wrong_settings_of_hosts(settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        HostsConfig(**settings)
