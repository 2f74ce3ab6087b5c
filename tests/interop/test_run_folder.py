"""A run's folder of parameters from elsewhere: opened as any other, and whole or not there."""

import json
from typing import Any

import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

import spade_jax
from spade_jax.config import (
    AttentionConfig,
    ConfigError,
    EncoderDecoderConfig,
    StackConfig,
)
from spade_jax.interop.run_folder import write_run
from spade_jax.models.build import builder
from spade_jax.runs import checkpoints
from spade_jax.trees import paths

MODEL = EncoderDecoderConfig(
    vocab_size=384,
    d_model=8,
    d_ff=8,
    encoder=StackConfig("window"),
    decoder=StackConfig("full"),
    attention=AttentionConfig(num_heads=2, num_buckets=8, max_distance=16),
)


@pytest.fixture(scope="module")
def params():
    return nnx.to_pure_dict(nnx.state(builder(MODEL)(nnx.Rngs(3)), nnx.Param))


def write(output, params, **changes: Any):
    settings: dict[str, Any] = dict(vocabulary="bytes", extra_ids=100, input_length=32)
    write_run(output, MODEL, params, **(settings | changes))


def test_it_is_a_run_of_no_step(params, tmp_path):
    kept = {"rows": np.arange(12, dtype=np.float32).reshape(3, 4).T}
    write(tmp_path / "deep" / "run", params, kept=kept, origin={"from": "here"})
    run = spade_jax.load(tmp_path / "deep" / "run")
    assert (run.step, run.input_length, run.config) == (0, 32, MODEL)
    found = paths(nnx.to_pure_dict(nnx.state(run.model, nnx.Param)))
    expected = paths(params)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    assert len(run.generate(["a word"], max_length=3)) == 1
    np.testing.assert_array_equal(
        load_file(tmp_path / "deep/run/kept.safetensors")["rows"], kept["rows"]
    )
    assert json.loads((tmp_path / "deep/run/origin.json").read_text()) == {"from": "here"}


def test_a_folder_that_holds_something_is_left_as_it_is(params, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").write_text("mine")
    with pytest.raises(ConfigError, match=r"--output = .*run': holds something; must be a new"):
        write(tmp_path / "run", params)
    with pytest.raises(ConfigError, match=r"mine': is a file; must be a new or an empty folder"):
        write(tmp_path / "run" / "mine", params)
    small = "must have at most 384 tokens, as the model has, and has 459 with its sentinels"
    with pytest.raises(ConfigError, match=small):
        write(tmp_path / "other", params, extra_ids=200)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_cannot_be_finished_leaves_nothing(params, tmp_path, monkeypatch):
    def fail(*arguments, **named):
        raise checkpoints.CheckpointError("the disk is full")

    monkeypatch.setattr(checkpoints.Checkpoints, "save", fail)
    with pytest.raises(checkpoints.CheckpointError):
        write(tmp_path / "run", params)
    assert [*tmp_path.iterdir()] == []
