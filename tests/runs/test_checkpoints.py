import asyncio
import json
import resource
import sys

import jax
import numpy as np
import pytest
from small_checkpoints import shapes, state_of

from spade_jax.runs.checkpoints import CheckpointError, Checkpoints

ABOUT = {"settings": {"train": {"steps": 9}}, "vocabulary": "abc"}


@pytest.fixture
def saved(tmp_path):
    """A directory with checkpoints of steps 3 and 4; older ones have made way for them."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    assert checkpoints.newest is None
    for step in (1, 2, 3, 4):
        checkpoints.save(step, state_of(step), lambda step=step: b"position %d" % step, ABOUT)
    checkpoints.wait()
    assert checkpoints.newest == 4
    checkpoints.close()
    return tmp_path / "checkpoints"


def restore(directory):
    checkpoints = Checkpoints(directory, keep=2)
    try:
        return checkpoints, *checkpoints.restore(shapes())
    finally:
        checkpoints.close()


def assert_is_step(step, state, position):
    assert position == b"position %d" % step
    assert jax.tree.structure(state) == jax.tree.structure(state_of(step))
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(state_of(step))):
        np.testing.assert_array_equal(one, other)


def test_all_positions_come_back_together(saved):
    checkpoints, state, position = restore(saved)
    assert_is_step(4, state, position)
    assert checkpoints.about() == ABOUT | {"step": 4}
    assert sorted(p.name for p in saved.iterdir()) == ["3", "4"]


FILES = (
    "state/_METADATA",
    "state/manifest.ocdbt",
    "state arrays",
    "position/data_0.bin",
    "position/about.json",
    "position/checksums.json",
)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("kind", ["truncated", "missing", "flipped"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(saved, kind, file):
    if file == "state arrays":
        data = (saved / "4" / "state" / "ocdbt.process_0" / "d").iterdir()
        path = max(data, key=lambda p: p.stat().st_size)
    else:
        path = saved / "4" / file
    content = bytearray(path.read_bytes())
    if kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "missing":
        path.unlink()
    else:
        content[len(content) // 2] ^= 0x40
        path.write_bytes(content)
    checkpoints, state, position = restore(saved)
    assert_is_step(3, state, position)
    assert list(checkpoints.damaged) == [4]
    assert str(saved / "4") in checkpoints.damaged[4]
    # Moved aside as it was, not deleted.
    assert (saved.parent / "damaged" / "4" / "state").is_dir()
    assert not (saved / "4").exists()


def test_looking_changes_nothing(saved):
    (saved / "4" / "position" / "about.json").write_text("{}")
    checkpoints = Checkpoints(saved, keep=2)
    assert checkpoints.newest == 3
    assert "file position/about.json is damaged" in checkpoints.damaged[4]
    assert sorted(p.name for p in saved.iterdir()) == ["3", "4"]


def test_half_written_ones_do_not_count(saved):
    (saved / "5.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    _, state, position = restore(saved)
    assert_is_step(4, state, position)


def test_a_second_damage_of_one_step_keeps_the_first(saved):
    (saved.parent / "damaged" / "4").mkdir(parents=True)
    (saved / "4" / "position" / "data_0.bin").unlink()
    _, state, position = restore(saved)
    assert_is_step(3, state, position)
    assert sorted(p.name for p in (saved.parent / "damaged").iterdir()) == ["4", "4_"]


def test_nothing_readable_is_an_error_that_touches_nothing(saved):
    for step in ("3", "4"):
        (saved / step / "position" / "checksums.json").write_text(json.dumps({"state/x": 1}))
    with pytest.raises(
        CheckpointError, match=r"none of the checkpoints can be read.*state/x is mi"
    ):
        Checkpoints(saved, keep=2)
    assert sorted(p.name for p in saved.iterdir()) == ["3", "4"]


def test_another_models_parameters_are_an_error(saved):
    checkpoints = Checkpoints(saved, keep=2)
    other = shapes()
    other.params["b"] = other.params.pop("a")
    with pytest.raises(CheckpointError, match="4: does not fit this model"):
        checkpoints.restore(other)
    checkpoints.close()


def test_a_full_disk_is_an_error_and_keeps_the_last_good_one(saved):
    checkpoints = Checkpoints(saved, keep=2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file can grow beyond this; the arrays' one does.
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        checkpoints.save(5, state_of(5), lambda: b"position 5", ABOUT)
        with pytest.raises(
            CheckpointError, match=r"could not be saved .* last good one is step 4$"
        ):
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        checkpoints.close()
    _, state, position = restore(saved)
    assert_is_step(4, state, position)


def test_writes_that_fail_after_the_first_are_not_reported_one_by_one(tmp_path, monkeypatch):
    """They report to a loop that is closed, from threads whose errors Python only prints."""
    printed = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: printed.append(report.exc_type))
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    checkpoints.save(5, state_of(5), lambda: b"position 5", ABOUT)
    checkpoints.wait()
    checkpoints.close()
    loop = asyncio.new_event_loop()
    loop.close()

    class Late:
        def __init__(self, report):
            self.report = report

        def __del__(self):
            self.report()

    other = Late(lambda: loop.call_soon_threadsafe(print))
    del other
    other = Late(lambda: {}["something else"])
    del other
    assert printed == [KeyError]


def test_a_position_that_cannot_be_had_is_an_error(saved):
    def no_position():
        raise OSError("no space")

    checkpoints = Checkpoints(saved, keep=2)
    with pytest.raises(CheckpointError, match=r"\(no space\); the last good one is step 4"):
        checkpoints.save(5, state_of(5), no_position, ABOUT)
    checkpoints.close()
