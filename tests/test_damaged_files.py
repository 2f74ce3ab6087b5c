"""Our own files, damaged in seeded ways, are opened by what programs open them with."""

import io
import json
import shutil
import sys
import time
from pathlib import Path

import pytest
from damage import damages, each_damage, seal, sentence
from rich.console import Console

from finetune.results import results_table
from spade_jax.config import RunError
from spade_jax.runs.checkpoints import CheckpointError, Checkpoints
from spade_jax.runs.open import open_run
from spade_jax.runs.results import read_results, write_results
from spade_jax.runs.workdir import Records, read_metrics
from spade_jax.telemetry.curves import draw_loss

sys.path.insert(0, str(Path(__file__).parent / "training"))
from small_checkpoints import ABOUT, save, shapes, state_of


@pytest.fixture(autouse=True)
def within_ten_seconds_each():
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < 20  # The slowest test here reads a hundred damaged files.


def test_metrics(tmp_path):
    records = Records(tmp_path, 0, {})
    for step in range(1, 5):
        records.write("train", step, {"loss": 1.0, "goodput": 0.5, "batch_digest": 3})
    records.write("eval", 4, {"loss": 1.0, "score": float("nan")})
    records.close()
    path = tmp_path / "metrics.jsonl"

    def read():
        draw_loss(read_metrics(path), tmp_path.with_suffix(".png"), baseline=None)

    assert each_damage(path, 1, read, RunError) >= 15


def test_metrics_that_a_run_goes_on_with_are_not_overwritten(tmp_path):
    lines = [json.dumps({"kind": "train", "step": step, "loss": 1.0}) for step in (1, 2)]
    for bad in ("garbage", "[]", "{}", '{"kind": "eval", "step": "2", "loss": 1}'):
        content = "\n".join([lines[0], bad, lines[1], ""])
        (tmp_path / "metrics.jsonl").write_text(content)
        with pytest.raises(RunError, match=r"metrics\.jsonl: line 2: is damaged \(.*\); put back"):
            Records(tmp_path, 2, {})
        assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
        assert (tmp_path / "metrics.jsonl").read_text() == content


def test_results(tmp_path):
    metrics = {"loss": 0.1, "accuracy": 1.0}
    split = {
        "metrics": metrics,
        "examples": 3,
        "cut_inputs": 0,
        "baseline": {"method": "most common target", "metrics": {"accuracy": 0.5}},
    }
    sources = {"validation": {"own": ["a.csv"]}}
    splits = {"validation": split, "test": split}
    results = {"task": "own", "step": 3, "sources": sources, "splits": splits}
    write_results(tmp_path, results)
    assert read_results(tmp_path) == results

    def read():
        found = read_results(tmp_path)
        if found is not None:
            Console(file=io.StringIO()).print(results_table(found))

    assert each_damage(tmp_path / "results.json", 2, read, RunError) >= 15


def test_a_run_does_not_read_its_config(tmp_path):
    (tmp_path / "config.json").write_bytes(b"\xff[")
    Records(tmp_path, 0, {"seed": 3}).close()
    assert json.loads((tmp_path / "config.json").read_text()) == {"seed": 3}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("stored")
    save(workdir / "checkpoints", (3, 4), ABOUT | {"scores": {"3": 0.5, "4": 0.6}})
    return workdir


def step_that_is_read(workdir):
    """By a run that goes on and by one that begins with it; each number must be right."""
    run = open_run(workdir, "init_from")
    params = run.checkpoints.restore_params(shapes().params, run.step)
    assert (params["a"] == state_of(run.step).params["a"]).all()
    checkpoints = Checkpoints(workdir / "checkpoints", keep=9)
    try:
        state, position = checkpoints.restore(shapes())
    finally:
        checkpoints.close()
    assert int(state.step) == checkpoints.newest
    assert position == b"position %d" % checkpoints.newest
    assert (state.params["a"] == state_of(checkpoints.newest).params["a"]).all()
    return run.step, checkpoints.newest


def test_a_checkpoint_with_any_damaged_file_gives_way_to_the_one_before(stored, tmp_path):
    files = [p.relative_to(stored) for p in sorted(stored.glob("checkpoints/4/**/*"))]
    for number, file in enumerate(files):
        workdir = tmp_path / str(number)
        shutil.copytree(stored, workdir)
        path = workdir / file
        if path.is_dir():
            shutil.rmtree(path)
            if number % 2:
                path.write_bytes(b"a file")
        else:
            content = path.read_bytes()
            all_of_them = [*damages(content or b"x", number), None]
            damage = all_of_them[number * 5 % len(all_of_them)]
            path.unlink()
            if damage is not None:
                path.write_bytes(damage)
            if damage == content:
                continue
        # The others are Orbax's, and not needed.
        covered = file.parts[2] in ("state", "position") and file.name != "commit_success.txt"
        assert step_that_is_read(workdir) in ([(3, 3)] if covered else [(3, 3), (4, 4)]), file


@pytest.mark.parametrize("name", ["about.json", "checksums.json"])
def test_small_files_of_a_checkpoint(stored, tmp_path, name):
    """Also where their checksums have been made to fit."""
    workdir = tmp_path / "run"
    shutil.copytree(stored, workdir)
    path = workdir / "checkpoints" / "4" / "position" / name

    def read():
        if name != "checksums.json":
            seal(workdir / "checkpoints" / "4")
        run = open_run(workdir, "init_from")
        assert run.step in (3, 4)

    content = path.read_bytes()
    for data in (*damages(content, 3, values=30), None):
        path.unlink()
        if data is not None:
            path.write_bytes(data)
        sentence(read, CheckpointError)
        path.write_bytes(content)
