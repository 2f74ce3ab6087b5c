"""Builds of a cache: their files, stopped and gone on with, and what is refused."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tensorflow_datasets as tfds
from caches import NUM_SHARDS, contents, make, segments
from corpora import write_lines

from spade_jax.config import ConfigError
from spade_jax.data._tensorflow import tf
from spade_jax.data.cache import build
from spade_jax.data.cache.__main__ import main
from spade_jax.data.config import DataConfig, DataError, SourceConfig

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
MINIATURE = ROOT / "tests" / "pretrain" / "miniature.py"


def command(config: DataConfig, output: Path) -> list[str]:
    source = config.sources[0]
    return [
        f"--config={MINIATURE}",
        f"--output={output}",
        f"--shards={NUM_SHARDS}",
        "--config.data.sources.0.kind=text",
        f"--config.data.sources.0.train={source.train}",
        f"--config.data.sources.0.validation={source.validation}",
    ]


@pytest.mark.slow
def test_a_build_killed_at_any_moment_ends_with_the_same_files(config, tmp_path, capsys):
    output = tmp_path / "killed"
    arguments = command(config, output)
    killed = subprocess.run(
        [sys.executable, HERE / "killed_build.py", *arguments, "--workers=1"],
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (output / "cache.json").exists()
    assert len(list(output.glob(".*.unfinished"))) == 1
    first, second, third = sorted(output.glob("*.json"))
    # What is left by a kill between the files of a shard and its record, and by a loss of power.
    first.unlink()
    second.write_text("")
    damaged = sorted(output.glob("*.array_record"))[2]
    assert damaged.name.endswith(third.name.removesuffix(".json")[-14:] + ".array_record")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert main([*arguments, "--workers=2"]) == 0
    assert contents(output) == contents(Path(config.cache))
    assert capsys.readouterr().out == (
        f"{output}: {len(segments(config)):,} segments to train on and "
        f"{len(segments(config, 'validation')):,} to validate on, in {2 * NUM_SHARDS} files of "
        f"1.3 MB in all; train with --config.data.cache={output}\n"
    )
    before = {path: path.stat().st_mtime_ns for path in output.glob("*-of-*")}
    assert main([*arguments, "--workers=1"]) == 0
    assert {path: path.stat().st_mtime_ns for path in output.glob("*-of-*")} == before


@pytest.mark.slow
def test_workers_end_with_a_build_that_is_killed(config, tmp_path):
    output = tmp_path / "workers"
    program = [sys.executable, "-m", "spade_jax.data.cache", *command(config, output)]
    process = subprocess.Popen([*program, "--workers=2"], cwd=ROOT, stderr=subprocess.PIPE)
    while not list(output.glob("*.json")):
        time.sleep(0.01)
        assert process.poll() is None
    process.kill()
    # Workers hold the other end of the pipe, and end with it.
    said = process.communicate(timeout=30)[1]
    assert b"Traceback" not in said
    done = subprocess.run([*program, "--workers=2"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert contents(output) == contents(Path(config.cache))
    assert f"{2 * NUM_SHARDS}/{2 * NUM_SHARDS}" in done.stderr


def test_beam_makes_the_same_files(config, tmp_path):
    pytest.importorskip("apache_beam", reason="needs the extra [beam]")
    output = tmp_path / "beam"
    program = [sys.executable, "-m", "spade_jax.data.cache", *command(config, output)]
    done = subprocess.run(
        [*program, "--beam=--runner=DirectRunner"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert contents(output) == contents(Path(config.cache))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shards=0"], "--shards = 0: must be at least 1"),
        (["--workers=0"], "--workers = 0: must be at least 1"),
        (["--shards=" + "9" * 20], "--shards = 99999999999999999999: must be at most 65536"),
        (["--workers=many"], "--workers = 'many': must be a whole number"),
        (["--output="], "--output = '': must be a path"),
        (["--config.data=3"], "config.data = 3: must be settings by their names"),
        (["--config.data.seeed=1"], "config.data.seeed: no such setting; did you mean 'seed'?"),
        (["--config.data.sources.0.train=no*"], "data.sources.train = 'no*': no such file"),
        (["--config.data.vocabulary=no.model"], "data.vocabulary = 'no.model': no such file"),
    ],
)
def test_wrong_settings_of_a_build(config, arguments, message, tmp_path, capsys):
    output = tmp_path / "none"
    assert main([*command(config, output), "--workers=1", *arguments]) == 2
    said = capsys.readouterr().err
    assert f"error: {message}" in said
    assert not output.exists()


@pytest.mark.parametrize("name", ["checkpoints", "metrics.jsonl"])
def test_the_workdir_of_a_run_is_no_place_for_a_cache(config, name, tmp_path, capsys):
    (tmp_path / name).mkdir()
    assert main([*command(config, tmp_path), "--workers=1"]) == 2
    said = capsys.readouterr().err
    assert f"holds {name} of a run; must be a directory of the cache's own" in said
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_build_leaves_another_cache_alone(config, direct, copy, tmp_path):
    directory = Path(copy.cache)
    before = contents(directory)
    longer = dataclasses.replace(direct, input_length=80)
    for _ in range(2):
        with pytest.raises(DataError, match=r"holds .* of a cache with other settings or input"):
            make(longer, directory)
        with pytest.raises(DataError, match=r"name another directory, or delete this one"):
            make(direct, directory, num_shards=4)
        assert contents(directory) == before
        for record in directory.glob("*-of-*.json"):
            record.unlink()
        before = contents(directory)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match=r"--output = '.*/file': File exists"):
        make(direct, tmp_path / "file")


def test_a_full_disk_is_said_in_a_sentence(direct, tmp_path, monkeypatch):
    class Full:
        def __init__(self, path, options):
            pass

        def write(self, record):
            raise RuntimeError("write() failed: No space left on device; writing x; at byte 0")

    monkeypatch.setattr(build.array_record_module, "ArrayRecordWriter", Full)
    with pytest.raises(
        DataError, match=r"--output = '.*': write\(\) failed: No space left on devic"
    ):
        make(direct, tmp_path / "cache")
    monkeypatch.undo()
    assert len(segments(make(direct, tmp_path / "cache"))) > 100


def test_a_build_of_text_that_changed_is_refused(direct, tmp_path):
    path = write_lines(tmp_path / "mine.txt", ["The union is a strong one."])
    config = dataclasses.replace(direct, sources=(SourceConfig(kind="text", train=str(path)),))
    make(config, tmp_path / "cache")
    write_lines(path, ["The union was a strong one."])
    with pytest.raises(DataError, match="of a cache with other settings or input files"):
        make(config, tmp_path / "cache")


def test_a_build_of_text_of_the_same_length_and_time_is_refused(direct, tmp_path):
    path = write_lines(tmp_path / "mine.txt", ["The union is a strong one."])
    state = path.stat()
    config = dataclasses.replace(direct, sources=(SourceConfig(kind="text", train=str(path)),))
    make(config, tmp_path / "cache")
    before = contents(tmp_path / "cache")
    write_lines(path, ["The onion is a strong one."])
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size
    with pytest.raises(DataError, match="of a cache with other settings or input files"):
        make(config, tmp_path / "cache")
    write_lines(path, ["The union is a strong one."])
    make(config, tmp_path / "cache")
    assert contents(tmp_path / "cache") == before


def test_a_build_of_tfds_that_was_prepared_anew_is_refused(direct, tmp_path):
    def prepare(text):
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        tfds.dataset_builders.store_as_tfds_dataset(
            name="tiny",
            version="1.0.0",
            data_dir=tmp_path / "data",
            features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
            split_datasets={"train": tf.data.Dataset.from_tensor_slices({"text": [text] * 5})},
        )

    source = SourceConfig(
        kind="tfds", name="tiny:1.0.0", train="train", data_dir=str(tmp_path / "data")
    )
    config = dataclasses.replace(direct, sources=(source,))
    prepare("The union is a strong one.")
    make(config, tmp_path / "cache")
    prepare("The union is a strong one.")
    make(config, tmp_path / "cache")
    prepare("The onion is a strong one.")
    with pytest.raises(DataError, match="of a cache with other settings or input files"):
        make(config, tmp_path / "cache")


def test_more_shards_than_examples_of_tfds(tmp_path):
    tfds.dataset_builders.store_as_tfds_dataset(
        name="tiny",
        config="en",
        version="1.0.0",
        data_dir=tmp_path,
        description="Made by a test.",
        features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
        split_datasets={"train": tf.data.Dataset.from_tensor_slices({"text": ["one", "two"]})},
    )
    source = SourceConfig(kind="tfds", name="tiny/en", data_dir=str(tmp_path), train="train")
    config = DataConfig(sources=(source,), input_length=8)
    with pytest.raises(
        ConfigError, match=r"--shards = 3: must be at most 2, the examples of data.sources.0.train"
    ):
        make(config, tmp_path / "cache", num_shards=3)
    assert segments(make(config, tmp_path / "cache", num_shards=2)) == [b"one", b"two"]
