"""A cache: its files, what is read from it, its positions, and what is refused."""

import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import grain
import numpy as np
import pytest
import tensorflow_datasets as tfds
from corpora import write_lines
from damage import damages, each_damage, sentence
from test_pipeline import original, take

from pretrain.__main__ import main as pretrain
from spade_jax.config import ConfigError
from spade_jax.data._tensorflow import tf
from spade_jax.data.cache import batches as cached
from spade_jax.data.cache import build
from spade_jax.data.cache.__main__ import main
from spade_jax.data.config import DataConfig, DataError, DenoiserConfig, SourceConfig
from spade_jax.data.pipeline import digest_data, train_batches, validation_batches
from spade_jax.runs.workdir import read_metrics

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MINIATURE = ROOT / "tests" / "pretrain" / "miniature.py"
NUM_SHARDS = 5
BATCH = 24


@pytest.fixture(scope="module")
def direct(corpus) -> DataConfig:
    """36 training documents of some 240 bytes: about 130 segments in an epoch."""
    source = SourceConfig(
        kind="text", train=f"{corpus}/train*", validation=f"{corpus}/validation.txt"
    )
    return DataConfig(sources=(source,), input_length=64, seed=3)


def make(config: DataConfig, directory: Path, num_shards: int = NUM_SHARDS) -> DataConfig:
    """Builds a cache; gives the configuration that reads it."""
    build.build_cache(config, directory, num_shards, build.run_here)
    return dataclasses.replace(config, cache=str(directory))


@pytest.fixture(scope="module")
def config(direct, tmp_path_factory) -> DataConfig:
    return make(direct, tmp_path_factory.mktemp("cache") / "whole")


@pytest.fixture
def copy(config, tmp_path) -> DataConfig:
    """A cache to do damage to."""
    shutil.copytree(config.cache, tmp_path / "copy")
    return dataclasses.replace(config, cache=str(tmp_path / "copy"))


def segments(config: DataConfig, split: str = "train") -> list[bytes]:
    """The text of every segment in a cache of bytes."""
    return [
        bytes(int(token) - 3 for token in np.frombuffer(record, "<u2"))
        for path in sorted(Path(config.cache).glob(f"{split}*.array_record"))
        for record in grain.sources.ArrayRecordDataSource(str(path))
    ]


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def joined(hosts: list) -> dict[str, np.ndarray]:
    """The next batch of all hosts."""
    batches = [next(host) for host in hosts]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def readers(config: DataConfig, count: int) -> list:
    return [
        train_batches(config, BATCH // count, shard_index=index, num_shards=count)
        for index in range(count)
    ]


def assert_equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)


def test_segments_are_the_text_cut_into_pieces(config, corpus):
    pieces = segments(config)
    length = config.denoisers[0].segment_length(64)
    assert sum(len(piece) < length for piece in pieces) <= NUM_SHARDS
    assert max(map(len, pieces)) == length
    text = b"".join(pieces)
    documents = (corpus / "train0.txt").read_bytes().splitlines()
    assert len(documents) == 12
    assert all(document in text for document in documents)


def test_one_shard_has_the_segments_that_are_read_directly(direct, tmp_path):
    config = make(direct, tmp_path / "one", num_shards=1)
    texts = [original(config, batch)[0] for batch in validation_batches(direct, 1)]
    assert segments(config, "validation") == texts
    cached = list(validation_batches(config, 1))
    assert [original(config, batch)[0] for batch in cached] == texts


@pytest.mark.parametrize("target_length", [None, 40])
def test_layout_is_that_of_reading_directly(direct, config, target_length):
    for settings in (direct, config):
        settings = dataclasses.replace(settings, target_length=target_length)
        batches = [*take(train_batches(settings, 4), 10), *validation_batches(settings, 4)]
        for batch in batches:
            assert {name: (v.shape, v.dtype) for name, v in batch.items()} == {
                "encoder_input_tokens": ((4, 64), np.int32),
                "decoder_input_tokens": ((4, settings.decoder_length), np.int32),
                "decoder_target_tokens": ((4, settings.decoder_length), np.int32),
                "decoder_loss_weights": ((4, settings.decoder_length), np.int32),
            }
            targets, shifted = batch["decoder_target_tokens"], batch["decoder_input_tokens"]
            np.testing.assert_array_equal(shifted[:, 1:], targets[:, :-1])
            assert (shifted[:, 0] == 0).all()
            np.testing.assert_array_equal(batch["decoder_loss_weights"], targets > 0)
            for tokens in (batch["encoder_input_tokens"], targets):
                ends = (tokens == 1).argmax(axis=1)
                for row, end in zip(tokens, ends):
                    assert (row[:end] > 1).all()
                    assert (row[end + 1 :] == 0).all()


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_every_example_is_seen_once_an_epoch(config, count):
    everything = segments(config)
    hosts = readers(config, count)
    batches = [joined(hosts) for _ in range(-(-3 * len(everything) // BATCH))]
    seen = list(itertools.chain(*(original(config, batch) for batch in batches)))
    epochs = [seen[i * len(everything) : (i + 1) * len(everything)] for i in range(3)]
    for epoch in epochs:
        assert Counter(epoch) == Counter(everything)
    assert epochs[0] != everything  # A permutation of all, in each epoch another.
    assert epochs[0] != epochs[1] != epochs[2]


def test_masks_change_with_the_epoch(config):
    everything = segments(config)
    batches = take(train_batches(config, 1), 2 * len(everything))
    masked = {original(config, batch)[0]: set() for batch in batches}
    for batch in batches:
        masked[original(config, batch)[0]].add(batch["encoder_input_tokens"].tobytes())
    assert sum(len(masks) > 1 for masks in masked.values()) > 0.9 * len(everything)


@pytest.mark.parametrize("count", [2, 3, 8])
def test_hosts_share_the_rows_of_one_host(config, count):
    one, hosts = train_batches(config, BATCH), readers(config, count)
    for _ in range(12):
        assert_equal(joined(hosts), next(one))


def test_seed_decides_the_stream(config):
    first = next(train_batches(config, BATCH))
    assert_equal(next(train_batches(config, BATCH)), first)
    other = next(train_batches(dataclasses.replace(config, seed=4), BATCH))
    assert original(config, other) != original(config, first)


@pytest.fixture(scope="module")
def mixed(direct, tmp_path_factory) -> DataConfig:
    """Two sources, one of them of digits alone, and two denoisers of other segment lengths."""
    directory = tmp_path_factory.mktemp("mixed")
    digits = ["0123456789" * (7 + i) for i in range(30)]
    source = SourceConfig(
        kind="text", train=str(write_lines(directory / "digits.txt", digits)), weight=3.0
    )
    config = dataclasses.replace(
        direct,
        sources=(*direct.sources, source),
        denoisers=(DenoiserConfig(), DenoiserConfig(0.5, 8.0, weight=2.0)),
    )
    return make(config, directory / "cache", num_shards=2)


def test_mixtures_have_their_shares_everywhere(mixed):
    first, second = (denoiser.segment_length(64) for denoiser in mixed.denoisers)
    assert first != second
    # Weights of 1 and 3 times weights of 1 and 2; a row is short at the end of a shard only.
    expected = {(False, first): 10, (False, second): 20, (True, first): 30, (True, second): 60}
    for batch in take(train_batches(mixed, 120), 8):
        texts = original(mixed, batch)
        kinds = Counter((text.isdigit(), len(text)) for text in texts)
        for kind, count in expected.items():
            assert abs(kinds[kind] - count) <= 4
    for count in (2, 3):
        assert_equal(joined(readers(mixed, count)), next(train_batches(mixed, BATCH)))


@pytest.fixture
def reads(monkeypatch) -> list[int]:
    """The numbers of all records read by readers made from now on."""
    numbers: list[int] = []

    class Counted(grain.sources.ArrayRecordDataSource):
        def __getitem__(self, number):
            numbers.append(number)
            return super().__getitem__(number)

    monkeypatch.setattr(grain.sources, "ArrayRecordDataSource", Counted)
    return numbers


@pytest.mark.parametrize("step", [10, 100_000])
def test_going_to_a_step_reads_nothing_and_is_a_few_bytes(config, step, reads):
    state = json.loads(train_batches(config, BATCH).get_state())
    state = json.dumps(state | {"step": step}).encode()
    assert len(state) < 200
    hosts = readers(config, 2)
    for host in hosts:
        host.set_state(state)
        assert host.get_state() == state
    assert reads == []
    batch = joined(hosts)
    # The batch, and what was read ahead.
    assert len(reads) <= BATCH * (1 + 8 + 1)

    alone = train_batches(config, BATCH)
    for _ in range(3):
        next(alone)
    alone.set_state(state)
    assert_equal(next(alone), batch)
    if step == 10:
        assert_equal(take(train_batches(config, BATCH), step + 1)[-1], batch)


def test_the_state_of_many_steps_is_that_of_going_there(config):
    batches = train_batches(config, BATCH)
    take(batches, 29)
    after = train_batches(config, BATCH)
    after.set_state(batches.get_state())
    for expected, batch in zip(take(batches, 10), after):
        assert_equal(batch, expected)


def test_a_step_has_the_batch_that_it_had_in_earlier_versions(config, monkeypatch):
    """Where this fails, Grain or numpy has changed, and runs that are under way are cut off."""
    assert cached.numbers_drawn() == "c66622fd440eca2e"
    state = train_batches(config, BATCH).get_state()
    monkeypatch.setattr(cached, "numbers_drawn", lambda: "other")
    message = (
        r"position in the data: was saved with grain [\d.]+ and numpy [\d.]+, which draw other "
        r"random numbers than grain .*; must be gone on with by the former"
    )
    with pytest.raises(DataError, match=message):
        train_batches(config, BATCH).set_state(state)


def test_positions_of_other_data_are_refused(config, direct):
    batches = train_batches(config, BATCH)
    state = batches.get_state()
    other = train_batches(dataclasses.replace(config, seed=4), BATCH)
    with pytest.raises(DataError, match="position in the data: was saved with data = "):
        other.set_state(state)
    with pytest.raises(DataError, match="batch_of_all_hosts = 24, but this run has 12; must be"):
        train_batches(config, BATCH // 2).set_state(state)
    with pytest.raises(DataError, match="that are no position in a cache"):
        batches.set_state(train_batches(direct, 4).get_state())
    with pytest.raises(DataError, match="position in the data: "):
        train_batches(direct, 4).set_state(state)


def test_damaged_positions_and_manifests_are_refused(copy):
    batches = train_batches(copy, BATCH)
    state = batches.get_state()
    refused = [sentence(partial(batches.set_state, data), DataError) for data in damages(state, 6)]
    assert all(message.startswith("position in the data: ") for message in refused if message)
    assert len([message for message in refused if message]) >= 15
    manifest = Path(copy.cache) / "cache.json"
    assert each_damage(manifest, 7, lambda: train_batches(copy, BATCH), DataError) >= 15


@pytest.mark.parametrize("count", [1, 2, 3])
def test_validation_is_every_segment_once_whatever_the_seed(config, count):
    size = 18 // count
    hosts = [
        validation_batches(config, size, shard_index=index, num_shards=count)
        for index in range(count)
    ]
    everything = segments(config, "validation")
    assert len(everything) % 18 != 0
    for _ in range(2):
        passes = [list(host) for host in hosts]
        assert {len(batches) for batches in passes} == {-(-len(everything) // 18)}
        rows = [
            {name: np.concatenate([batch[name] for batch in step]) for name in step[0]}
            for step in zip(*passes)
        ]
        one = validation_batches(dataclasses.replace(config, seed=8), 18)
        for batch, expected in zip(rows, one, strict=True):
            assert_equal(batch, expected)
    texts = list(itertools.chain(*(original(config, batch) for batch in rows)))
    assert texts[: len(everything)] == everything
    missing = 18 - len(everything) % 18
    assert all((values[-missing:] == 0).all() for values in rows[-1].values())
    assert rows[-1]["decoder_loss_weights"][:-missing].any(axis=1).all()
    assert len(list(validation_batches(config, 18, limit=1))) == 1


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


def test_a_build_killed_at_any_moment_ends_with_the_same_files(config, tmp_path, capsys):
    output = tmp_path / "killed"
    arguments = command(config, output)
    left = []
    for moment in (
        "in the middle of a file",
        "between the files of a shard and its record",
    ):
        killed = subprocess.run(
            [sys.executable, HERE / "killed_build.py", moment, *arguments, "--workers=1"],
            capture_output=True,
            text=True,
        )
        assert killed.returncode == -signal.SIGKILL, (moment, killed.stderr)
        left.append({path.name.split("-of-")[0] for path in output.glob("*.json")})
        assert not (output / "cache.json").exists()
    assert [len(records) for records in left] == [0, 2]
    # What a loss of power may leave.
    damaged = sorted(output.glob("*.array_record"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    (output / f"train-source0-00001-of-0000{NUM_SHARDS}.json").write_text("")
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra_ids": 90}, r"another vocabulary \(digest .*\) than data.vocabulary = 'bytes' wi"),
        ({"input_length": 80}, r"segments of 70 tokens, but data.input_length = 80 and data.den"),
        ({"denoisers": (DenoiserConfig(0.5, 8.0),)}, r".* need segments of 112"),
        ({"sources": (SourceConfig(),)}, r"data.sources.0.kind = 'text', but this run has 'sotu'"),
        ({"sources": (SourceConfig(),) * 2}, "1 entries in data.sources, but this run has 2"),
    ],
)
def test_a_cache_of_other_data_is_refused(config, changes, message):
    other = dataclasses.replace(config, **changes)
    for read in (train_batches, validation_batches):
        with pytest.raises(DataError, match=f"data.cache = '.*': was built with {message}") as said:
            read(other, 4)
        assert str(said.value).endswith("; must be the same, or build another cache")


def test_a_cache_that_lacks_something_is_refused(copy):
    directory = Path(copy.cache)
    name = f"train-source0-length70-00001-of-0000{NUM_SHARDS}.array_record"
    whole = (directory / name).read_bytes()

    def refused(message: str) -> None:
        with pytest.raises(DataError, match=rf"data\.cache = '.*/copy': {message}"):
            train_batches(copy, 4)

    (directory / name).unlink()
    refused(rf"{name} cannot be read \(No such file or directory\); build the cache again")
    (directory / name).write_bytes(whole[:-100])
    refused(f"{name} has {len(whole) - 100} bytes, but must have {len(whole)}; build the cache")
    (directory / name).write_bytes(whole)
    assert next(train_batches(copy, 4)).keys()
    manifest = json.loads((directory / "cache.json").read_text())
    (directory / "cache.json").write_text(json.dumps(manifest | {"format": 2}))
    refused("is a cache of format 2, but must be of format 1; build another one")
    (directory / "cache.json").write_text(json.dumps(manifest | {"files": 2}))
    refused(r"cache.json: is damaged \(files is no list\); build the cache again")
    (directory / "cache.json").write_text("{")
    refused(r"cache.json: is damaged \(no JSON\); build the cache again")
    (directory / "cache.json").unlink()
    refused("holds no cache.json; must be a directory that `python -m spade_jax.data.cache")


def test_damage_within_a_file_is_found_when_it_is_read(copy):
    for path in Path(copy.cache).glob("train*.array_record"):
        data = bytearray(path.read_bytes())
        data[300:3000] = bytes(255 - byte for byte in data[300:3000])
        path.write_bytes(data)
    with pytest.raises(DataError, match=r"data.cache = '.*/copy': cannot be read \(Corrupted"):
        take(train_batches(copy, 4), 40)


def test_less_text_than_a_batch(config):
    count = len(segments(config))
    with pytest.raises(
        DataError, match=rf"{count} training examples in an epoch, but a batch of {count + 1};"
    ):
        train_batches(config, count + 1)
    with pytest.raises(DataError, match="but a batch of 200; must have at least one batch"):
        train_batches(config, 100, shard_index=1, num_shards=2)


def test_a_cache_without_validation_text(direct, tmp_path):
    source = dataclasses.replace(direct.sources[0], validation="")
    config = make(dataclasses.replace(direct, sources=(source,)), tmp_path / "cache")
    assert len(segments(config)) > 100
    with pytest.raises(DataError, match=r"data.cache = .*: has no validation text; data.sources"):
        validation_batches(config, 4)


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


def test_what_a_cache_holds_is_told_by_its_checksums(config, copy):
    found = digest_data(config)
    assert found == digest_data(copy)
    manifest = json.loads((Path(config.cache) / "cache.json").read_text())
    assert found == {"data.cache": {f["name"]: f"{f['crc32']:08x}" for f in manifest["files"]}}


def test_a_run_on_a_cache(config, tmp_path):
    data = [argument for argument in command(config, tmp_path) if ".data." in argument]
    arguments = [
        f"--config={MINIATURE}",
        f"--workdir={tmp_path / 'run'}",
        *data,
        f"--config.data.cache={config.cache}",
        "--config.train.steps=2",
        "--config.train.checkpoint_every=1",
        "--config.train.eval_batches=1",
        "--config.optimizer.warmup_steps=0",
        "--config.samples=0",
    ]
    assert pretrain(arguments) == 0
    whole = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [(line["kind"], line["step"]) for line in whole] == [
        ("train", 1),
        ("train", 2),
        ("eval", 2),
    ]
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "2")
    assert pretrain(arguments) == 0
    again = read_metrics(tmp_path / "run" / "metrics.jsonl")
    for one, other in zip(whole, again, strict=True):
        assert one["loss"] == other["loss"]
