"""One run at a time in a workdir."""

import json
import os
import subprocess
import sys

import pytest

from spade_jax.config import ConfigError
from spade_jax.files import unfinished
from spade_jax.runs import lock
from spade_jax.runs.checkpoints import CheckpointError, Checkpoints
from spade_jax.runs.lock import only_run
from spade_jax.runs.workdir import prepare

HOLD = """
import sys, time
from pathlib import Path
from spade_jax.runs.checkpoints import Checkpoints
from spade_jax.runs.lock import only_run
workdir = Path(sys.argv[1])
with only_run(workdir, Checkpoints(workdir / "checkpoints", 1), print):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(workdir):
    """Another process with the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, workdir],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


def take(workdir):
    """Takes the lock and gives it back; returns what was said."""
    said = []
    with only_run(workdir, Checkpoints(workdir / "checkpoints", 1), said.append):
        assert (workdir / "run.lock").exists()
    assert not (workdir / "run.lock").exists()
    return said


def test_a_second_run_is_refused_and_a_dead_ones_lock_is_taken_over(tmp_path):
    first = hold(tmp_path)
    before = (tmp_path / "run.lock").read_bytes()
    with pytest.raises(ConfigError) as caught:
        take(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"workdir = {str(tmp_path)!r}: is in use by another run (of ")
    assert f"process {first.pid}, since 20" in message
    assert message.endswith(f"if it is surely dead, delete {tmp_path / 'run.lock'}")
    assert (tmp_path / "run.lock").read_bytes() == before
    first.kill()
    first.communicate()
    (said,) = take(tmp_path)
    assert "taken over from a run that is dead (of " in said
    assert f"process {first.pid}" in said
    # And one that ended well leaves nothing.
    second = hold(tmp_path)
    second.communicate("")
    assert second.returncode == 0
    assert take(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_lock_is_a_dead_ones(tmp_path):
    for text in (b"[]", b"\xff", b"{", b'{"pid": 3}', b"[" * 100_000):
        (tmp_path / "run.lock").write_bytes(text)
        (said,) = take(tmp_path)
        assert "taken over from a run that is dead (which does not say whose)" in said


def elsewhere(workdir):
    """A lock as of a machine whose locks the kernel here does not know."""
    owner = lock._myself() | {"host": "elsewhere", "machine": "elsewhere 1", "pid": "7"}
    (workdir / "run.lock").write_text(json.dumps(owner))


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(lock, "_DEAD_SECONDS", 1.5)
    monkeypatch.setattr(lock, "_RENEWED_SECONDS", 0.1)


def test_a_run_of_another_machine_is_alive_while_it_renews_its_lock(tmp_path, quick, monkeypatch):
    """The one that renews it is here, and the kernel is made to say nothing of it."""
    with only_run(tmp_path, Checkpoints(tmp_path / "checkpoints", 1), print):
        elsewhere(tmp_path)
        monkeypatch.setattr(lock, "try_lock", lambda descriptor: True)
        with pytest.raises(ConfigError, match=r"in use by another run \(of .* on elsewhere, proc"):
            take(tmp_path)


def test_a_run_of_another_machine_that_renews_nothing_is_dead(tmp_path, quick):
    elsewhere(tmp_path)
    waiting, taken = take(tmp_path)
    assert "waiting to see whether another run is alive (of " in waiting
    assert "on elsewhere, process 7" in taken
    # One that has not for long: at once.
    elsewhere(tmp_path)
    os.utime(tmp_path / "run.lock", (1e9, 1e9))
    (taken,) = take(tmp_path)
    assert "taken over" in taken


def test_where_no_file_system_locks_it_is_renewed_all_the_same(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(lock, "try_lock", lambda descriptor: None)
    with (
        only_run(tmp_path, Checkpoints(tmp_path / "checkpoints", 1), print),
        pytest.raises(ConfigError, match="is in use by another run"),
    ):
        take(tmp_path)
    assert take(tmp_path) == []


def test_checkpoints_that_came_meanwhile_are_not_overlooked(tmp_path):
    found = Checkpoints(tmp_path / "checkpoints", 1)
    (tmp_path / "checkpoints" / "7").mkdir(parents=True)
    with (
        pytest.raises(CheckpointError, match="another run has changed these meanwhile; start"),
        only_run(tmp_path, found, print),
    ):
        pass
    assert not (tmp_path / "run.lock").exists()


def test_what_killed_runs_left_half_written_is_swept(tmp_path):
    (tmp_path / "submission").mkdir()
    for name in ("loss.png", "metrics.jsonl", "probe", "submission/RTE.tsv"):
        unfinished(tmp_path / name).write_text("half")
    take(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["submission"]


def test_processes_with_the_same_id_prepare_a_workdir_at_once(tmp_path, monkeypatch):
    """As in pods that share a volume: each is in the other's way at every moment."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    names = []
    write_text = type(tmp_path).write_text

    def write_and_let_the_other_begin(path, text, **more):
        done = write_text(path, text, **more)
        names.append(path.name)
        if len(names) == 1:
            prepare(tmp_path)
        return done

    monkeypatch.setattr(type(tmp_path), "write_text", write_and_let_the_other_begin)
    prepare(tmp_path)
    assert len({*names}) == 2
    assert not [path for path in tmp_path.iterdir() if path.name != "compiled"]
