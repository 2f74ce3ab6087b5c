"""A run's numbers in Weights & Biases and MLflow, whose libraries are played here."""

import json
import sys
import types

import pytest

from spade_jax.config import ConfigError, RunError
from spade_jax.telemetry.trackers import check_tracker, open_tracker


class Library(types.ModuleType):
    """Both libraries, as far as they are used: what was said to them, in order."""

    def __init__(self, name):
        super().__init__(name)
        self.said = []
        self.id, self.info = f"new in {name}", types.SimpleNamespace(run_id=f"new in {name}")

    def init(self, **settings):
        self.said.append(("init", settings))
        self.id = settings["id"] or self.id
        return self

    def log(self, values, step):
        self.said.append((step, dict(values)))

    log_metrics = log

    def finish(self):
        self.said.append("end")

    end_run = finish

    def start_run(self, run_id, run_name):
        self.said.append(("start", run_id, run_name))
        self.info = types.SimpleNamespace(run_id=run_id or self.id)
        return self

    def log_dict(self, settings, file):
        self.said.append((file, settings))


@pytest.fixture
def libraries(monkeypatch):
    found = {name: Library(name) for name in ("wandb", "mlflow")}
    for name, library in found.items():
        monkeypatch.setitem(sys.modules, name, library)
    return found


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_run_that_goes_on_is_the_same_one_there(libraries, name, tmp_path):
    workdir = tmp_path / "quick"
    workdir.mkdir()
    for step in (1, 2):
        tracker = open_tracker(name, workdir, {"train": {"steps": (1, 2)}})
        tracker.scalars(step, {"train/loss": 2.0})
        tracker.close()
    said, settings = libraries[name].said, {"train": {"steps": [1, 2]}}
    assert [part for part in said if part[0] in (1, 2)] == [
        (1, {"train/loss": 2.0}),
        (2, {"train/loss": 2.0}),
    ]
    assert said.count("end") == 2
    if name == "wandb":
        first, second = (part[1] for part in said if part[0] == "init")
        assert (first["id"], second["id"]) == (None, "new in wandb")
        assert first["config"] == settings
        assert (first["name"], first["resume"]) == ("quick", "allow")
    else:
        starts = [part for part in said if part[0] == "start"]
        assert starts == [("start", None, "quick"), ("start", "new in mlflow", None)]
        assert ("config.json", settings) in said
    kept = json.loads((workdir / "tracker.json").read_text())
    assert kept == {"tracker": name, "id": f"new in {name}"}


def test_the_run_of_one_tracker_is_none_of_the_other(libraries, tmp_path):
    open_tracker("wandb", tmp_path, {}).close()
    open_tracker("mlflow", tmp_path, {}).close()
    assert libraries["mlflow"].said[0] == ("start", None, tmp_path.name)


def test_what_is_not_installed_is_said(monkeypatch):
    check_tracker(None)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError) as refused:
        check_tracker("wandb")
    assert str(refused.value) == (
        "train.tracker = 'wandb': must be installed: python -m pip install wandb"
    )


def test_what_a_tracker_says_is_passed_on(libraries, monkeypatch, tmp_path):
    def refuse(**settings):
        raise OSError("no key:\nlog in first")

    monkeypatch.setattr(libraries["wandb"], "init", refuse)
    with pytest.raises(RunError, match=r"cannot be used \(OSError: no key: log in first\)"):
        open_tracker("wandb", tmp_path, {})
    assert not (tmp_path / "tracker.json").exists()
