"""Runs that earlier versions began: they open, load and go on."""

import json
import shutil

import jax
import numpy as np
from damage import seal
from flax import nnx

import spade_jax
from pretrain.__main__ import main
from spade_jax.runs.checkpoints import Checkpoints
from spade_jax.runs.old_settings import renewed
from spade_jax.runs.workdir import read_metrics

OLD_DECAYS = [[r".*(norm|bias|global_mixer/(a_|b|d|log_dt)).*", 0.0], [".*", None]]


def as_before(settings):
    """Settings as they were before mixers had names."""
    settings = json.loads(json.dumps(settings)) | {"print_sharding": False, "eval_only": False}
    model, optimizer = settings["model"], settings["optimizer"]
    mixers = model.pop("mixers")
    model["ssm"] = mixers["s4"] | {"structure": "dplr"}
    model["attention"]["radius"] = mixers["window"]["radius"]
    for newer in (model["ssm"], model["attention"]):
        newer.pop("kind", None)
        del newer["implementation"]
    optimizer["weight_decays"] = OLD_DECAYS
    del optimizer["group_rates"]
    return settings


def test_an_old_run_opens_loads_and_goes_on(pretrained, tmp_path, capsys):
    shutil.copytree(pretrained, tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoints" / "2"
    path = checkpoint / "position" / "about.json"
    about = json.loads(path.read_text())
    settings = about["settings"]
    del about["step"], about["scores"], about["dropout_numbers"]
    path.write_text(json.dumps(about | {"settings": as_before(settings)}))
    seal(checkpoint)

    new, old = spade_jax.load(pretrained), spade_jax.load(tmp_path / "run")
    assert old.config == new.config
    assert old.why == new.why
    jax.tree.map(np.testing.assert_array_equal, nnx.state(old.model), nnx.state(new.model))

    file = tmp_path / "config.py"
    file.write_text(f"get_config = lambda: {settings!r}\n")
    arguments = [f"--config={file}", f"--workdir={tmp_path / 'run'}", "--config.train.steps=3"]
    # Its dropout would be another.
    assert main(arguments) == 2
    assert "model.dropout_rate = 0.1) by random numbers of version 1" in capsys.readouterr().err

    settings["model"]["dropout_rate"] = 0.0
    path.write_text(json.dumps(about | {"settings": as_before(settings)}))
    seal(checkpoint)
    file.write_text(f"get_config = lambda: {settings!r}\n")
    assert main(arguments) == 0
    steps = [line["step"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert steps == [1, 2, 2, 3, 3]
    after = Checkpoints(tmp_path / "run" / "checkpoints", 1)
    assert after.newest == 3
    assert after.about()["settings"] == settings | {"train": settings["train"] | {"steps": 3}}


def test_what_is_new_stays(pretrained):
    settings = json.loads((pretrained / "config.json").read_text())
    assert renewed(settings) == settings
