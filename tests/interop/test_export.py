"""The command, format by format; what each folder computes is in its own tests."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from several_processes import command

import spade_jax
from spade_jax.interop.export.__main__ import main
from spade_jax.interop.from_safetensors import main as from_safetensors
from spade_jax.interop.run_folder import fill_run
from spade_jax.interop.source import Source
from spade_jax.loading import model_of
from spade_jax.models.build import builder
from spade_jax.runs.open import open_run
from spade_jax.training.config import MeshConfig
from spade_jax.training.sharding import make_mesh
from spade_jax.training.step import abstract_model


def export(run, form, output, *more):
    return main([f"--checkpoint={run}", f"--format={form}", f"--output={output}", *more])


def parameters(run):
    opened = open_run(run, "run")
    source = Source(opened)
    return {name: source[name] for name in source}


def refused(capsys):
    """The one line that says why."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_safetensors_and_back_to_the_bit(run, tmp_path):
    assert export(run, "safetensors", tmp_path / "out", "--no-verify") == 0
    assert (
        from_safetensors([f"--checkpoint={tmp_path / 'out'}", f"--output={tmp_path / 'again'}"])
        == 0
    )
    before, after = parameters(run), parameters(tmp_path / "again")
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)
    assert spade_jax.load(tmp_path / "again").config == spade_jax.load(run).config


def test_the_same_run_is_the_same_bytes(run, tmp_path):
    assert export(run, "safetensors", tmp_path / "one", "--no-verify") == 0
    before = (tmp_path / "one" / "model.safetensors").read_bytes()
    assert export(run, "safetensors", tmp_path / "two", "--no-verify") == 0
    assert (tmp_path / "two" / "model.safetensors").read_bytes() == before


def test_orbax_in_bfloat16_keeps_the_state_space(run, tmp_path):
    assert export(run, "orbax", tmp_path / "out", "--no-verify", "--dtype=bfloat16") == 0
    before, after = parameters(run), parameters(tmp_path / "out")
    for name, array in before.items():
        kept = "global_mixer" in name
        expected = array if kept else array.astype(jnp.bfloat16).astype(np.float32)
        np.testing.assert_array_equal(after[name], expected)
    scale = spade_jax.load(tmp_path / "out").model.encoder.layers_0.mixer_norm.scale
    assert scale[...].dtype == np.float32  # Whatever the files have.


def test_programs_run_without_this_library(run, tmp_path, capsys):
    out = tmp_path / "out"
    sizes = ("--lengths", "48", "--max_length=12", "--beams=2", "--platforms", "cpu")
    assert export(run, "stablehlo", out, *sizes) == 0
    assert "4 of 4 outputs are equal" in capsys.readouterr().err
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["lengths"], manifest["beams"]) == ([48], 2)
    names = {path.name for path in out.glob("*.stablehlo")}
    assert names == {
        f"{name}_48.stablehlo" for name in ("encode", "start", "step", "greedy", "beam")
    }


def test_what_computes_otherwise_is_not_exported(run, tmp_path, capsys, monkeypatch):
    from spade_jax.interop.export import job, safetensors

    true = job.write_tensors

    def wrong(folder, shapes, get, **more):
        true(folder, shapes, lambda name: get(name) * (1 + ("output" in name)), **more)

    def here(module, folder, given):
        return safetensors.recomputed(folder, given)

    monkeypatch.setattr(job, "write_tensors", wrong)
    monkeypatch.setattr(safetensors, "recomputed_by", here)
    assert export(run, "safetensors", tmp_path / "out") == 1
    assert "from the run's" in refused(capsys)
    assert not (tmp_path / "out").exists()
    assert [*tmp_path.iterdir()] == []


def test_a_folder_that_holds_something_is_left_alone(run, tmp_path, capsys):
    (tmp_path / "mine").write_text("mine")
    assert export(run, "safetensors", tmp_path) == 2
    assert "holds something; must be a new or an empty folder" in refused(capsys)
    assert export(run, "safetensors", tmp_path / "mine") == 2
    assert "is a file" in refused(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert export(tmp_path / "none", "safetensors", tmp_path / "out") == 2
    assert "no such folder; must be the workdir of a run" in refused(capsys)


def test_a_full_disk_is_one_sentence(run, tmp_path, capsys, monkeypatch):
    from spade_jax.interop.export import job

    def full(*_, **__):
        raise OSError(28, "No space left on device", str(tmp_path / "model.safetensors"))

    monkeypatch.setattr(job, "write_tensors", full)
    assert export(run, "safetensors", tmp_path / "out") == 1
    assert "No space left on device" in refused(capsys)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda about: about["model"].update(d_model=64), r"is \[32\], must be \[64\]"),
        (lambda about: about["model"].update(tie_embeddings=True), "holds output, which its model"),
        (lambda about: about["model"].update(width=3), "is no model of this version"),
        (lambda about: about.pop("vocabulary"), "is damaged"),
    ],
)
def test_files_that_are_no_whole_model_are_one_sentence(run, tmp_path, capsys, change, says):
    assert export(run, "safetensors", tmp_path / "out", "--no-verify") == 0
    capsys.readouterr()
    path = tmp_path / "out" / "spade.json"
    about = json.loads(path.read_text())
    change(about)
    path.write_text(json.dumps(about))
    status = from_safetensors([f"--checkpoint={tmp_path / 'out'}", f"--output={tmp_path / 'new'}"])
    assert status == 1
    assert re.search(says, refused(capsys))
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["safetensors", "orbax", "savedmodel"])
def test_each_format_is_compared_in_a_process_of_its_own(run, tmp_path, capsys, form):
    sizes = ("--lengths", "16", "48", "--max_length=12", "--beams=2", "--platforms", "cpu")
    assert export(run, form, tmp_path / "out", *sizes) == 0
    assert "4 of 4 outputs are equal" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "out")


@pytest.mark.slow
def test_two_processes_write_the_same_files_as_one(run, tmp_path):
    options = ("--format=safetensors", f"--checkpoint={run}", "--no-verify")
    one, two = tmp_path / "one", tmp_path / "two"
    assert main([*options, f"--output={one}"]) == 0
    done = subprocess.run(
        command("spade_jax.interop.export", *options, f"--output={two}"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    names = {path.name for path in one.iterdir()}
    assert names == {path.name for path in two.iterdir()}
    for name in names:
        assert (two / name).read_bytes() == (one / name).read_bytes(), name
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}


def save_over_eight_devices(run, folder):
    """In a process of its own."""
    opened = open_run(run, "run")
    state = nnx.state(model_of(opened))
    mesh = make_mesh(MeshConfig(fsdp=4, tensor=2))
    assert mesh.size == 8
    _, shapes, _ = abstract_model(builder(opened.model), mesh)
    params = jax.tree.map(
        lambda array, shape: jax.device_put(array, shape.sharding), nnx.to_pure_dict(state), shapes
    )
    assert any(not x.sharding.is_fully_replicated for x in jax.tree.leaves(params))
    Path(folder).mkdir()
    fill_run(Path(folder), opened.model, params, vocabulary="bytes", extra_ids=20, input_length=48)


@pytest.mark.slow
def test_parameters_of_eight_devices_are_the_same_files(run, tmp_path):
    script = (
        "import sys; sys.path[:0] = sys.argv[3:]\n"
        "from pathlib import Path\n"
        "from test_export import save_over_eight_devices\n"
        "save_over_eight_devices(Path(sys.argv[1]), sys.argv[2])"
    )
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    subprocess.run(
        [sys.executable, "-c", script, str(run), str(tmp_path / "run"), *sys.path],
        env=environment,
        check=True,
    )
    for name, source in (("one", run), ("eight", tmp_path / "run")):
        assert export(source, "safetensors", tmp_path / name, "--no-verify") == 0
    for file in ("model.safetensors", "checksums.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "eight" / file).read_bytes()
