import json
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from spade_jax.config import ConfigError
from spade_jax.data._tensorflow import tf
from spade_jax.runs.workdir import Records, prepare, read_metrics, read_samples
from spade_jax.telemetry.events import EventWriter
from spade_jax.telemetry.samples import Sample


def events(directory):
    for path in sorted(directory.iterdir()):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            yield tf.compat.v1.Event.FromString(record)


def test_tensorflow_reads_the_events(tmp_path):
    writer = EventWriter(tmp_path / "tensorboard", first_step=201)
    writer.scalars(300, {"train/loss": 2.5, "train/accuracy": 0.125})
    writer.texts(300, {"samples/1": "    input  Ω"})
    writer.close()
    version, start, scalars, texts = events(tmp_path / "tensorboard")
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (201, tf.compat.v1.SessionLog.START)
    assert scalars.step == 300
    assert [(v.tag, v.simple_value) for v in scalars.summary.value] == [
        ("train/loss", 2.5),
        ("train/accuracy", 0.125),
    ]
    (text,) = texts.summary.value
    assert (texts.step, text.tag, text.metadata.plugin_data.plugin_name) == (
        300,
        "samples/1",
        "text",
    )
    assert tf.make_ndarray(text.tensor).item() == "    input  Ω".encode()


def test_a_resumed_run_holds_each_step_once(tmp_path):
    records = Records(tmp_path, 0, {"train": {"steps": 3}})
    for step in (1, 2, 3):
        records.write("train", step, {"loss": 4.0 - step})
    records.samples(2, [Sample("of 2", None, "é", "sure")])
    records.write("eval", 2, {"loss": 2.25})
    # As where the run was killed in the middle of an evaluation.
    records.samples(3, [Sample("of 3", "three", "3")])
    records.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 4, "lo')
    records = Records(tmp_path, 2, {"train": {"steps": 4}})
    assert set(records.evaluations) == {2}
    records.write("train", 3, {"loss": 0.5})
    records.samples(3, [Sample("of 3", "three", "4")])
    records.close()
    assert read_samples(tmp_path) == [
        {"step": 2, "input": "of 2", "target": None, "prediction": "é", "note": "sure"},
        {"step": 3, "input": "of 3", "target": "three", "prediction": "4"},
    ]
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        {"kind": "train", "step": 1, "loss": 3.0},
        {"kind": "train", "step": 2, "loss": 2.0},
        {"kind": "eval", "step": 2, "loss": 2.25},
        {"kind": "train", "step": 3, "loss": 0.5},
    ]
    assert json.loads((tmp_path / "config.json").read_text()) == {"train": {"steps": 4}}


def test_a_new_run_does_not_keep_the_lines_of_an_old_one(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "step": 1, "loss": 9.0}\n')
    (tmp_path / "samples.jsonl").write_text("{")
    Records(tmp_path, 0, {}).close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""
    assert (tmp_path / "samples.jsonl").read_text() == ""


def test_the_curve_is_drawn(tmp_path):
    records = Records(tmp_path, 0, {})
    records.draw(baseline=None)
    from matplotlib.image import imread

    empty = imread(tmp_path / "loss.png")
    assert not (tmp_path / "metrics.png").exists()
    for step in range(1, 6):
        records.write("train", step, {"loss": 5.0 / step})
    records.write("eval", 5, {"loss": 1.5, "accuracy": 0.5, "seconds": 1.0})
    records.draw(baseline=3.0)
    metrics = imread(tmp_path / "metrics.png")
    records.draw(baseline=3.0, best=5)
    records.close()
    # The best step has a mark in both.
    assert np.abs(imread(tmp_path / "metrics.png") - metrics).max() > 0.5
    drawn = imread(tmp_path / "loss.png")
    assert drawn.shape == empty.shape
    assert np.abs(drawn - empty).max() > 0.5


def test_a_workdir_that_cannot_be_made_is_rejected(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"workdir = .*file/run.*Not a directory"):
        prepare(tmp_path / "file" / "run")
    prepare(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.fixture
def new_process():
    """JAX as in a process that has been told nothing of a cache; () begins another one."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}

    def begin():
        jax.config.update("jax_compilation_cache_dir", None)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        compilation_cache.reset_cache()

    begin()
    yield begin
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def double(x):
    """By a program that this process compiles anew or finds."""
    return jax.jit(lambda x: 2 * x)(x)


def test_programs_are_kept_in_the_workdir(new_process, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare(Path("run"))
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "run" / "compiled")
    double(np.arange(3))
    kept = sorted((tmp_path / "run" / "compiled").iterdir())
    assert [path.name for path in kept if path.name.startswith("jit__lambda")]
    new_process()
    prepare(tmp_path / "run")
    double(np.arange(3))
    assert sorted((tmp_path / "run" / "compiled").iterdir()) == kept


def test_programs_are_kept_where_jax_was_told_to(new_process, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "elsewhere"))
    prepare(tmp_path / "run")
    double(np.arange(3))
    assert any((tmp_path / "elsewhere").iterdir())
    assert not any((tmp_path / "run").iterdir())


def test_programs_that_cannot_be_read_or_kept_are_compiled_again(new_process, tmp_path):
    """And nothing is said, for a warning is an error here."""
    prepare(tmp_path)
    double(np.arange(3))
    for path in (tmp_path / "compiled").iterdir():
        path.write_bytes(path.read_bytes()[:99])
    new_process()
    prepare(tmp_path)
    assert double(np.arange(3)).tolist() == [0, 2, 4]
    new_process()
    (tmp_path / "file").write_text("")
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "file"))
    prepare(tmp_path)
    assert double(np.arange(3)).tolist() == [0, 2, 4]
