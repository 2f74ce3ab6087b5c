"""`spade_jax.load`: a run in three lines."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from damage import seal

import spade_jax
from spade_jax.config import ConfigError, ModelConfig, RunError, from_dict
from spade_jax.data.config import DataError
from spade_jax.decoding.__main__ import main
from spade_jax.decoding.lines import one_line

TEXTS = ["The state of the <extra_id_0> is", "strong", "é" * 70]


@pytest.fixture(scope="module")
def run(pretrained):
    return spade_jax.load(str(pretrained))


def test_importing_the_package_imports_no_jax():
    slow = {"jax", "flax", "tensorflow", "numpy"}
    script = f"import spade_jax, sys; assert not {slow} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 0


def test_what_there_is(run, pretrained):
    assert (run.workdir, run.step) == (pretrained, 2)
    assert run.why == "step 2, the newest: train.best_metric is None"
    assert run.settings == json.loads((pretrained / "config.json").read_text())
    assert run.config == from_dict(ModelConfig, run.settings["model"]) == run.model.config
    assert (run.vocabulary.size, run.input_length) == (359, 64)


def test_tokens_are_what_the_model_reads(run):
    tokens = run.tokens([" strong\n", "<extra_id_0>", "é" * 70])
    assert tokens.dtype == np.int32
    assert tokens.shape == (3, 64)
    assert tokens[0, :8].tolist() == [*run.vocabulary.encode("strong"), 1, 0]
    assert tokens[1, :3].tolist() == [358, 1, 0]
    assert tokens[2, -1] == 1
    assert run.tokens([]).shape == (0, 0)


def test_it_writes_what_the_command_writes(run, pretrained, tmp_path):
    file, output = tmp_path / "input", tmp_path / "output"
    file.write_text("".join(f"{text}\n" for text in TEXTS), encoding="utf-8")
    options = ["--max_length=6", "--batch_size=2", "--temperature=1", "--seed=3"]
    assert (
        main([f"--checkpoint={pretrained}", f"--input={file}", f"--output={output}", *options]) == 0
    )
    written = run.generate(TEXTS, max_length=6, batch_size=2, temperature=1, seed=3)
    assert all(written)
    assert [one_line(text) for text in written] == output.read_text().split("\n")[:-1]


def test_options_that_cannot_be(run):
    with pytest.raises(ConfigError, match=r"decoding\.beam: no such setting; did you mean 'beams'"):
        run.generate(TEXTS, beam=3)
    with pytest.raises(ConfigError, match="batch_size = 0: must be at least 1"):
        run.generate(TEXTS, batch_size=0)
    with pytest.raises(ConfigError, match="texts = 'strong': must be a list of texts"):
        run.generate("strong")
    with pytest.raises(DataError, match="<extra_id_100>: no such sentinel"):
        run.tokens(["<extra_id_100>"])


@pytest.mark.parametrize(
    ("gone", "missing"),
    [
        ("state", "2: file state/"),
        ("state/_METADATA", "2: file state/_METADATA is missing"),
        ("position", "2: has no position/checksums.json"),
        ("position/about.json", "2: file position/about.json is missing"),
    ],
)
def test_half_a_copy(pretrained, tmp_path, gone, missing):
    shutil.copytree(pretrained / "checkpoints", tmp_path / "checkpoints")
    part = tmp_path / "checkpoints" / "2" / gone
    shutil.rmtree(part) if part.is_dir() else part.unlink()
    with pytest.raises(RunError) as refused:
        spade_jax.load(tmp_path)
    said = str(refused.value)
    assert said.startswith(f"{tmp_path}/checkpoints: none of the checkpoints can be read (the new")
    assert missing in said
    assert "put back a whole copy" in said


def test_a_vocabulary_that_is_not_there_or_another(pretrained, tmp_path):
    shutil.copytree(pretrained / "checkpoints", tmp_path / "checkpoints")
    path = tmp_path / "checkpoints" / "2" / "position" / "about.json"
    about = json.loads(path.read_text())
    for name, change, message in (
        ("gone.model", "", r"data\.vocabulary = 'gone\.model': no such file"),
        ("bytes", "f", f"data.vocabulary = 'bytes': is not what {tmp_path} was trained with"),
    ):
        about["settings"]["data"]["vocabulary"] = name
        path.write_text(json.dumps(about | {"vocabulary": about["vocabulary"] + change}))
        seal(tmp_path / "checkpoints" / "2")
        with pytest.raises(ConfigError, match=message):
            spade_jax.load(tmp_path)


def test_no_run_at_all(tmp_path):
    with pytest.raises(ConfigError, match=r"^folder = '.*nowhere': no such folder; must be the"):
        spade_jax.load(tmp_path / "nowhere")
