"""Which checkpoint of a run is opened, and what is said of it."""

import json
import shutil

import numpy as np
import pytest
from damage import seal
from small_checkpoints import ABOUT, SETTINGS, save, shapes, state_of

from spade_jax.config import ConfigError, RunError
from spade_jax.runs.checkpoints import CheckpointError, Checkpoints
from spade_jax.runs.open import open_run

SCORES = {"2": 0.5, "4": 0.9, "6": 0.7, "8": float("nan")}


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """The workdir of a run whose checkpoints know their scores: best first, 4, 6, 2."""
    workdir = tmp_path_factory.mktemp("known")
    save(workdir / "checkpoints", (2, 4, 6, 8), ABOUT | {"scores": SCORES})
    return workdir


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """One of an earlier version, whose scores are in metrics.jsonl alone, and names no step."""
    workdir = tmp_path_factory.mktemp("before")
    save(workdir / "checkpoints", (2, 4, 6))
    for about in workdir.glob("checkpoints/*/position/about.json"):
        about.write_text(json.dumps(ABOUT))
        seal(about.parents[1])
    lines = [{"kind": "eval", "step": int(n), "loss": 1.0, "score": s} for n, s in SCORES.items()]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return workdir


@pytest.fixture
def copy(tmp_path):
    def begin(workdir):
        shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
        return tmp_path

    return begin


def opened(workdir):
    """The step whose parameters a program gets, and why it is this one."""
    run = open_run(workdir, "init_from")
    params = run.checkpoints.restore_params(shapes().params, run.step)
    np.testing.assert_array_equal(params["a"], state_of(run.step).params["a"])
    return run.step, run.why


def damage(checkpoint):
    (checkpoint / "position" / "data_0.bin").write_bytes(b"")


def test_the_best_one_is_opened_and_said(known, before):
    for workdir in (known, before):
        assert opened(workdir) == (4, "step 4, the best by score")


def test_checkpoints_alone_know_the_best_one(known, tmp_path):
    shutil.copytree(known / "checkpoints", tmp_path / "checkpoints")
    assert opened(tmp_path) == (4, "step 4, the best by score")


def test_where_nothing_is_known_of_them_it_is_the_newest(before, tmp_path):
    shutil.copytree(before / "checkpoints", tmp_path / "checkpoints")
    assert opened(tmp_path) == (6, "step 6, the newest: score is not known of any")


@pytest.mark.parametrize("workdir", ["known", "before"])
def test_the_best_of_those_that_can_be_read(workdir, copy, request):
    workdir = copy(request.getfixturevalue(workdir))
    checkpoints = workdir / "checkpoints"
    damage(checkpoints / "4")
    step, why = opened(workdir)
    assert step == 6
    assert why == (
        "step 6, the best by score of those that can be read "
        f"({checkpoints / '4'}: file position/data_0.bin is damaged)"
    )
    shutil.rmtree(checkpoints / "4")
    assert opened(workdir)[1].endswith(f"that can be read ({checkpoints / '4'}: is not there)")
    shutil.rmtree(checkpoints / "6")
    assert opened(workdir)[0] == 2


def test_the_newest_where_no_scored_one_can_be_read(known, copy):
    workdir = copy(known)
    for step in (2, 4, 6):
        shutil.rmtree(workdir / "checkpoints" / str(step))
    step, why = opened(workdir)
    assert step == 8
    assert why.startswith("step 8, the newest: none that score is known of can be read (")


def test_a_damaged_newest_is_said(copy, before):
    workdir = copy(before)
    (workdir / "metrics.jsonl").unlink()
    damage(workdir / "checkpoints" / "6")
    step, why = opened(workdir)
    assert step == 4
    assert "the newest: score is not known of any; newer, and damaged: " in why
    assert why.endswith("checkpoints/6: file position/data_0.bin is damaged")


def test_a_metric_that_tells_nothing_decides_nothing(tmp_path):
    save(tmp_path / "checkpoints", (2, 4), ABOUT | {"scores": {"2": 0.0, "4": 0.0}})
    assert opened(tmp_path) == (
        4,
        "step 4, the newest: score was 0.000 at every evaluation, and tells nothing",
    )


def test_without_a_metric_it_is_the_newest(tmp_path):
    settings = SETTINGS | {"train": SETTINGS["train"] | {"best_metric": None}}
    save(tmp_path / "checkpoints", (2, 4), ABOUT | {"settings": settings})
    assert opened(tmp_path) == (4, "step 4, the newest: train.best_metric is None")


def test_a_renamed_checkpoint_is_noticed(known, before, copy):
    workdir = copy(known)
    (workdir / "checkpoints" / "8").rename(workdir / "checkpoints" / "500")
    checkpoints = Checkpoints(workdir / "checkpoints", 1)
    assert checkpoints.newest == 6
    assert checkpoints.damaged[500].endswith("500: was saved at step 8; must have that name")
    # An earlier version's says so when it is read.
    workdir = copy(before)
    shutil.rmtree(workdir / "checkpoints")
    shutil.copytree(before / "checkpoints" / "6", workdir / "checkpoints" / "500")
    checkpoints = Checkpoints(workdir / "checkpoints", 1)
    for read in (checkpoints.restore_params, checkpoints.restore):
        with pytest.raises(CheckpointError, match=r"500: was saved at step 6; must have that name"):
            read(shapes() if read == checkpoints.restore else shapes().params)
    checkpoints.close()


@pytest.mark.parametrize("sums", ["{}", '{"position/about.json": 1}', "less"])
def test_checksums_that_lack_files_are_no_checksums(known, copy, sums):
    workdir = copy(known)
    path = workdir / "checkpoints" / "8" / "position" / "checksums.json"
    if sums == "less":
        kept = json.loads(path.read_text())
        del kept["state/_METADATA"]
        sums = json.dumps(kept)
    path.write_text(sums)
    checkpoints = Checkpoints(workdir / "checkpoints", 1)
    assert checkpoints.newest == 6
    assert checkpoints.damaged[8].startswith(f"{workdir}/checkpoints/8: file ")


def test_what_is_no_checkpoint_is_left_alone(known, copy):
    workdir = copy(known)
    for name in ("²", "007", "-3", "tmp", "1_000"):
        (workdir / "checkpoints" / name).mkdir()
    (workdir / "checkpoints" / "9").write_text("a file")
    assert opened(workdir)[0] == 4
    checkpoints = Checkpoints(workdir / "checkpoints", 9)
    assert [*checkpoints.damaged] == [9]
    state, position = checkpoints.restore(shapes())
    assert (int(state.step), position) == (8, b"position 8")
    checkpoints.close()


def test_a_file_in_the_place_of_checkpoints(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(CheckpointError, match=r"checkpoints: is a file; must be a folder of"):
        open_run(tmp_path, "init_from")


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({}, "settings is missing"),
        ({"settings": {"train": {}, "model": {}}, "vocabulary": 3}, "vocabulary is '3'"),
        ([], "it is no object"),
        (ABOUT | {"scores": []}, "scores is no object"),
    ],
)
def test_what_checkpoints_say_of_their_run_is_checked(tmp_path, about, message):
    save(tmp_path / "checkpoints", (2,))
    checkpoint = tmp_path / "checkpoints" / "2"
    (checkpoint / "position" / "about.json").write_text(json.dumps(about))
    seal(checkpoint)
    with pytest.raises(CheckpointError) as caught:
        open_run(tmp_path, "init_from")
    assert f"about.json: is damaged ({message}" in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"train": SETTINGS["train"], "model": SETTINGS["model"]},
        SETTINGS | {"model": {"d_modell": 3}},
        SETTINGS | {"train": {}},
    ],
)
def test_settings_of_another_version(tmp_path, settings):
    save(tmp_path / "checkpoints", (2,), ABOUT | {"settings": settings})
    with pytest.raises(CheckpointError, match="was saved by another version of spade_jax"):
        open_run(tmp_path, "init_from")


def test_a_damaged_metrics_file_is_named_where_it_is_needed(before, known, copy):
    workdir = copy(before)
    with (workdir / "metrics.jsonl").open("ab") as file:
        file.write(b"\xff\n")
    with pytest.raises(RunError, match=r"metrics\.jsonl: line 5: is damaged \(no JSON\); put back"):
        open_run(workdir, "init_from")
    shutil.rmtree(workdir / "checkpoints")
    shutil.copytree(known / "checkpoints", workdir / "checkpoints")
    assert opened(workdir)[0] == 4


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("", "holds no checkpoint; must be the workdir of a run, in which there is a directory"),
        ("nowhere", "no such folder; must be the workdir of a run"),
        ("file", "no such folder; must be the workdir of a run"),
        ("steps", "is a folder of checkpoints; must be the workdir around it, '{tmp_path}'"),
    ],
)
def test_no_checkpoint(tmp_path, folder, message):
    (tmp_path / "file").write_text("")
    (tmp_path / "steps" / "12").mkdir(parents=True)
    with pytest.raises(ConfigError) as refused:
        open_run(tmp_path / folder, "init_from")
    expected = f"init_from = '{tmp_path / folder}': {message.format(tmp_path=tmp_path)}"
    assert str(refused.value).startswith(expected)


def test_a_checkpoint_by_its_own_folder(known, copy):
    assert opened(known / "checkpoints" / "2") == (2, "step 2, as it was named")
    with pytest.raises(ConfigError, match=r"no such checkpoint; must be one of the steps 2, 4, 6"):
        open_run(known / "checkpoints" / "3", "init_from")
    workdir = copy(known)
    damage(workdir / "checkpoints" / "6")
    with pytest.raises(CheckpointError, match=r"^init_from = .*/6': cannot be read \("):
        open_run(workdir / "checkpoints" / "6", "init_from")
