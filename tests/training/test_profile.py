import dataclasses
import gzip
import json
import shutil

import jax
import numpy as np
import pytest
from test_loop import TRAIN, metrics, start


def profiled(first, last):
    return dataclasses.replace(TRAIN, profile_steps=(first, last))


def traced_steps(workdir):
    """The steps in the one trace that TensorBoard finds beside the events of a workdir."""
    (path,) = workdir.glob("tensorboard/plugins/profile/*/*.trace.json.gz")
    assert path.with_name(path.name.replace("trace.json.gz", "xplane.pb")).stat().st_size > 1000
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    return [int(event["args"]["step_num"]) for event in events if event.get("name") == "train"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run without a profile."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, start(workdir)[0]


def assert_same_run(workdir, outcome, whole):
    assert outcome.finished
    assert metrics(workdir) == metrics(whole[0])
    for one, other in zip(jax.tree.leaves(outcome.state), jax.tree.leaves(whole[1].state)):
        np.testing.assert_array_equal(one, other)


def test_the_steps_asked_for_are_traced_and_nothing_else_changes(whole, tmp_path):
    # Between which lie an evaluation and a checkpoint.
    outcome, screen = start(tmp_path, train=profiled(3, 7))
    assert traced_steps(tmp_path) == [3, 4, 5, 6, 7]
    assert f"profile: {tmp_path / 'tensorboard'}, for TensorBoard\n" in screen
    assert_same_run(tmp_path, outcome, whole)
    assert not (whole[0] / "tensorboard" / "plugins").exists()


def test_the_first_and_the_last_step_can_be_traced(tmp_path):
    start(tmp_path, train=profiled(1, 12))
    assert traced_steps(tmp_path) == [*range(1, 13)]


def test_a_signal_ends_a_trace_and_the_run_that_goes_on_traces_the_rest(whole, tmp_path):
    outcome, _ = start(tmp_path, signal_at=5, train=profiled(4, 8))
    assert outcome.step == 6
    assert traced_steps(tmp_path) == [4, 5, 6]
    shutil.rmtree(tmp_path / "tensorboard" / "plugins")
    outcome, _ = start(tmp_path, train=profiled(4, 8))
    assert traced_steps(tmp_path) == [7, 8]
    assert_same_run(tmp_path, outcome, whole)


def test_an_error_ends_a_trace(tmp_path):
    def fail(params):
        raise KeyError

    with pytest.raises(KeyError):
        start(tmp_path, train=profiled(3, 8), evaluation=fail)
    assert traced_steps(tmp_path) == [3, 4]


def test_steps_that_are_done_are_not_traced(tmp_path):
    start(tmp_path, signal_at=5)
    outcome, _ = start(tmp_path, train=profiled(2, 6))
    assert outcome.finished
    assert not (tmp_path / "tensorboard" / "plugins").exists()


def test_a_trace_that_cannot_be_written_stops_nothing(whole, tmp_path, monkeypatch):
    stop = jax.profiler.stop_trace

    def fail():
        stop()
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: No space left on device")

    monkeypatch.setattr(jax.profiler, "stop_trace", fail)
    outcome, screen = start(tmp_path, train=profiled(3, 4))
    assert "tensorboard: the profile could not be written (RESOURCE_EXHAUSTED: No space" in screen
    assert_same_run(tmp_path, outcome, whole)
