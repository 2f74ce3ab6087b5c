"""`python -m spade_jax.decoding` on the checkpoint of a run of two steps."""

import io
import os
import shutil
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from several_processes import command

from spade_jax.decoding.__main__ import main

LINES = ["The state of the <extra_id_0> is", "", "strong", "We ask the Congress", "é" * 70]


def typed(data: bytes) -> io.TextIOWrapper:
    """A standard input of these bytes."""
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8")


@pytest.fixture
def run(pretrained):
    return pretrained


def test_a_line_for_each_line_whatever_the_batches(run, tmp_path, capsys, monkeypatch):
    path = tmp_path / "input.txt"
    path.write_text("".join(f"{line}\n" for line in LINES), encoding="utf-8")
    settings = [f"--checkpoint={run}", "--max_length=6"]
    capsys.readouterr()
    assert main([*settings, f"--input={path}", "--batch_size=2"]) == 0
    written = capsys.readouterr()
    lines = written.out.split("\n")
    assert len(lines) == len(LINES) + 1
    assert lines[1] == ""
    assert "1 inputs were cut off at 64 tokens" in written.err
    output = tmp_path / "output.txt"
    assert main([*settings, f"--input={path}", f"--output={output}"]) == 0
    assert output.read_text(encoding="utf-8") == written.out
    assert {*tmp_path.iterdir()} == {path, output}
    capsys.readouterr()
    monkeypatch.setattr(sys, "stdin", typed("\n".join(LINES).encode()))
    assert main([*settings, "--input=-", "--batch_size=5"]) == 0
    assert capsys.readouterr().out == written.out
    # A byte order mark, other ends of lines and white space around them make no difference.
    other = "\ufeff" + "\r\n".join(f" {line}\t" for line in LINES)
    path.write_bytes(other.encode())
    monkeypatch.setattr(sys, "stdin", typed(other.encode()))
    for source in (path, "-"):
        assert main([*settings, f"--input={source}", "--batch_size=5"]) == 0
        assert capsys.readouterr().out == written.out


@pytest.mark.slow
def test_two_processes_write_what_one_does(run, tmp_path):
    path, one, two = (tmp_path / name for name in ("input", "one", "two"))
    path.write_text("".join(f"{line}\n" for line in LINES), encoding="utf-8")
    settings = [f"--checkpoint={run}", f"--input={path}", "--max_length=6", "--batch_size=4"]
    settings += ["--temperature=1.0"]
    assert main([*settings, f"--output={one}"]) == 0
    done = subprocess.run(
        command("spade_jax.decoding", *settings, f"--output={two}"), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("1 inputs were cut off at 64 tokens") == 1
    assert len(one.read_text().split("\n")) == len(LINES) + 1
    assert two.read_bytes() == one.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input=-", "--output=out"], "--input = '-': must be a file that all 2 processes read"),
        ([f"--input={__file__}"], "--output = None: must be a file where several processes decode"),
    ],
)
def test_two_processes_need_files(run, arguments, message):
    done = subprocess.run(
        command("spade_jax.decoding", f"--checkpoint={run}", *arguments),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert f"error: {message}" in done.stdout


def test_parameters_are_those_of_the_train_state(run):
    from flax import nnx

    from spade_jax.config import ModelConfig, from_dict
    from spade_jax.models.build import builder
    from spade_jax.objectives.config import LossConfig
    from spade_jax.objectives.seq2seq import Seq2Seq
    from spade_jax.runs.checkpoints import CheckpointError, Checkpoints
    from spade_jax.training.config import MeshConfig, OptimizerConfig, TrainConfig
    from spade_jax.training.sharding import make_mesh
    from spade_jax.training.step import abstract_model, make_trainer

    checkpoints = Checkpoints(run / "checkpoints", keep=1)
    settings = checkpoints.about()["settings"]
    config = from_dict(ModelConfig, settings["model"])
    mesh = make_mesh(MeshConfig())

    params = checkpoints.restore_params(abstract_model(builder(config), mesh)[1])
    trainer = make_trainer(
        builder(config),
        Seq2Seq(from_dict(LossConfig, settings["loss"])),
        from_dict(OptimizerConfig, settings["optimizer"]),
        from_dict(TrainConfig, settings["train"]),
        mesh,
    )
    state, _ = checkpoints.restore(trainer.state_shapes)
    checkpoints.close()
    flat = nnx.traversals.flatten_mapping
    assert flat(params).keys() == flat(state.params).keys()
    for path, array in flat(state.params).items():
        np.testing.assert_array_equal(flat(params)[path], array, err_msg=str(path))

    other = from_dict(ModelConfig, {**settings["model"], "d_ff": 48})
    shapes = abstract_model(builder(other), mesh)[1]
    with pytest.raises(CheckpointError, match=r"feed_forward/.*: \(.*32.*\), must be \(.*48"):
        checkpoints.restore_params(shapes)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--input=nowhere.txt"], 1, "error: nowhere.txt: No such file or directory"),
        (["--input=-", "--max_length=0"], 2, "error: --max_length = 0: must be at least 1"),
        (["--input=-", "--batch_size=0"], 2, "error: --batch_size = 0: must be at least 1"),
        (["--input=-", "--seed=1180591620717411303424"], 2, "must be at most 4294967295"),
        (["--input=-", "--temperature=nan"], 2, "error: --temperature = nan: must be at least 0"),
        (["--input=-", "--beams=360"], 2, "decoding.beams = 360: must be at most 359, the size"),
        (["--input=-", "--beams=2", "--temperature=1"], 2, "decoding.temperature = 1.0: must be 0"),
    ],
)
def test_wrong_settings(run, arguments, status, message, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", typed(b"a line\n"))
    capsys.readouterr()
    assert main([f"--checkpoint={run}", *arguments]) == status
    written = capsys.readouterr()
    assert message in written.err
    assert written.out == ""


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (b"a\nthe <extra_id_100>\n", 2, "line 2: <extra_id_100>: no such sentinel; the vocabulary"),
        (b"ok line\ncaf\xe9 line\n", 1, "line 2: is not UTF-8 (byte 0xe9 at 3); must be UTF-8"),
    ],
)
def test_a_line_that_cannot_be_read(run, tmp_path, data, status, message, capsys, monkeypatch):
    path = tmp_path / "input.txt"
    path.write_bytes(data)
    monkeypatch.setattr(sys, "stdin", typed(data))
    capsys.readouterr()
    for source, name in ((path, str(path)), ("-", "the standard input")):
        assert main([f"--checkpoint={run}", f"--input={source}"]) == status
        written = capsys.readouterr()
        assert f"error: {name}, {message}" in written.err
        assert written.out == ""


def test_no_directory_at_all(capsys):
    assert main(["--checkpoint=", "--input=-"]) == 2
    assert capsys.readouterr().err == "error: --checkpoint = '': must be a path\n"


def test_a_directory_without_a_checkpoint(tmp_path, capsys):
    assert main([f"--checkpoint={tmp_path}", "--input=-"]) == 2
    assert "holds no checkpoint" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_checkpoint_is_left_as_it_is(run, tmp_path, capsys):
    shutil.copytree(run / "checkpoints", tmp_path / "checkpoints")
    (tmp_path / "checkpoints" / "2" / "position" / "about.json").write_text("{}")
    assert main([f"--checkpoint={tmp_path}", "--input=-"]) == 1
    assert "none of the checkpoints can be read" in capsys.readouterr().err
    assert (tmp_path / "checkpoints" / "2").is_dir()


def test_it_says_which_step_it_opens(run, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", typed(b""))
    capsys.readouterr()
    assert main([f"--checkpoint={run}", "--input=-"]) == 0
    assert f"{run}: step 2, the newest: train.best_metric is None" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("", "--output = '': is a folder"),
        (".", "--output = '.': is a folder"),
        ("/", "--output = '/': is a folder"),
        ("absent/out", "--output = 'absent/out': cannot be written (No such file or directory)"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_anything_is_read(
    output, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", typed(b"a line\n"))
    assert main(["--checkpoint=nowhere", "--input=-", f"--output={output}"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_file_is_written_through(run, tmp_path, monkeypatch):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = []
    thread = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    thread.start()
    monkeypatch.setattr(sys, "stdin", typed(b"a line\nanother\n"))
    arguments = [f"--checkpoint={run}", "--input=-", "--max_length=6", f"--output={pipe}"]
    assert main(arguments) == 0
    thread.join(10)
    assert [text.count("\n") for text in read] == [2]
    assert pipe.is_fifo()


@pytest.fixture
def standard_output(monkeypatch):
    """Puts what a descriptor leads to in the place of the standard output."""
    opened = []

    def begin(descriptor):
        opened.append(os.fdopen(descriptor, "w"))
        monkeypatch.setattr(sys, "stdout", opened[-1])

    yield begin
    for file in opened:
        file.close()


def test_a_full_disk_is_the_outputs_fault(run, capsys, monkeypatch, standard_output):
    monkeypatch.setattr(sys, "stdin", typed(b"a line\n"))
    standard_output(os.open("/dev/full", os.O_WRONLY))
    assert main([f"--checkpoint={run}", "--input=-", "--max_length=6"]) == 1
    said = capsys.readouterr().err
    assert said.endswith("error: the standard output: No space left on device\n")


def test_it_ends_quietly_where_nobody_reads_on(run, capsys, monkeypatch, standard_output):
    monkeypatch.setattr(sys, "stdin", typed(b"a line\n"))
    ours, theirs = os.pipe()
    os.close(ours)
    standard_output(theirs)
    assert main([f"--checkpoint={run}", "--input=-", "--max_length=6"]) == 128 + signal.SIGPIPE
    assert "error" not in capsys.readouterr().err


def test_a_closed_standard_output_is_said(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["--checkpoint=nowhere", "--input=-"]) == 2
    assert "--output = None: must be a file where the standard" in capsys.readouterr().err
