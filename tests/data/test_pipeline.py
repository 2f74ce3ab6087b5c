"""Batches: their layout, their order, their position, and validation."""

import dataclasses
import hashlib
import itertools
import json
import re
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import seqio
from corpora import make_documents, write_lines

from spade_jax.data import sources
from spade_jax.data._tensorflow import tf
from spade_jax.data.config import DataConfig, DataError, DenoiserConfig, SourceConfig
from spade_jax.data.pipeline import train_batches, validation_batches
from spade_jax.data.tasks import denoising_mixture, denoising_task
from spade_jax.data.unigram import unigram_cross_entropy
from spade_jax.data.vocabulary import load_vocabulary
from spade_jax.objectives.seq2seq_batch import Seq2SeqBatch


@pytest.fixture(scope="module")
def config(corpus) -> DataConfig:
    """36 training documents of some 240 bytes: about 130 segments in an epoch."""
    source = SourceConfig(
        kind="text", train=f"{corpus}/train*", validation=f"{corpus}/validation.txt"
    )
    return DataConfig(
        sources=(source,), input_length=64, document_shuffle_buffer=8, shuffle_buffer=16, seed=3
    )


def take(batches, count: int) -> list[dict[str, np.ndarray]]:
    return list(itertools.islice(batches, count))


def fingerprint(batches) -> str:
    """A digest of every bit of some batches."""
    digest = hashlib.sha256()
    for batch in batches:
        for name in sorted(batch):
            digest.update(name.encode() + batch[name].tobytes())
    return digest.hexdigest()


def original(config: DataConfig, batch: dict[str, np.ndarray]) -> list[bytes]:
    """The bytes of each row's segment before it was corrupted."""
    vocabulary = load_vocabulary(config)
    segments = []
    for inputs, targets in zip(batch["encoder_input_tokens"], batch["decoder_target_tokens"]):
        spans: dict[int, list[int]] = {}
        for token in targets[: np.argmax(targets == 1)]:
            if vocabulary.sentinel_index(token) is None:
                spans[next(reversed(spans))].append(token)
            else:
                spans[token] = []
        tokens = []
        for token in inputs[: np.argmax(inputs == 1)]:
            tokens += spans.get(token, [token])
        segments.append(bytes(int(token) - 3 for token in tokens))
    return segments


def test_layout(config):
    batches = take(train_batches(config, 4), 10)
    for batch in batches:
        assert {name: (v.shape, v.dtype) for name, v in batch.items()} == {
            "encoder_input_tokens": ((4, 64), np.int32),
            "decoder_input_tokens": ((4, config.decoder_length), np.int32),
            "decoder_target_tokens": ((4, config.decoder_length), np.int32),
            "decoder_loss_weights": ((4, config.decoder_length), np.int32),
        }
        targets, shifted = batch["decoder_target_tokens"], batch["decoder_input_tokens"]
        np.testing.assert_array_equal(shifted[:, 1:], targets[:, :-1])
        assert (shifted[:, 0] == 0).all()
        assert (batch["decoder_loss_weights"] == 1).all()  # Segments fill both sides exactly.
        assert (batch["encoder_input_tokens"] > 0).all()
        assert (batch["encoder_input_tokens"][:, -1] == 1).all()
        assert (targets[:, -1] == 1).all()


def test_longer_targets_are_padded(config):
    longer = dataclasses.replace(config, target_length=config.decoder_length + 5)
    batch = next(train_batches(longer, 4))
    assert batch["decoder_target_tokens"].shape == (4, config.decoder_length + 5)
    assert (batch["decoder_target_tokens"][:, -5:] == 0).all()
    expected = [1] * config.decoder_length + [0] * 5
    np.testing.assert_array_equal(batch["decoder_loss_weights"], [expected] * 4)


def test_an_epoch_is_all_of_the_text(config):
    one_by_one = dataclasses.replace(config, document_shuffle_buffer=1, shuffle_buffer=1)
    documents = [doc for seed in range(3) for doc in make_documents(12, seed)]
    length = sum(len(document.encode()) for document in documents)
    batches = take(train_batches(one_by_one, 1), length // config.denoisers[0].segment_length(64))
    text = b"".join(original(config, batch)[0] for batch in batches)
    assert all(document.encode()[:-70] in text for document in documents)
    assert length - len(text) < 70


def test_seed_decides_the_stream(config):
    first = fingerprint(take(train_batches(config, 4), 60))
    assert fingerprint(take(train_batches(config, 4), 60)) == first
    other = dataclasses.replace(config, seed=4)
    assert fingerprint(take(train_batches(other, 4), 60)) != first


POSITIONS = (0, 1, 29, 70)
RESUME = """
import json, pathlib, sys
sys.path.insert(0, sys.argv[1])
from test_pipeline import POSITIONS, fingerprint, take
from spade_jax.config import from_dict
from spade_jax.data.config import DataConfig
from spade_jax.data.pipeline import train_batches
directory = pathlib.Path(sys.argv[2])
for name in ("one", "two"):
    config = from_dict(DataConfig, json.loads((directory / f"{name}.json").read_text()))
    batches = train_batches(config, 4)
    for position in POSITIONS:
        batches.set_state((directory / f"{name}{position}").read_bytes())
        print(fingerprint(take(batches, 40)))
"""


def test_position_is_exact_in_another_process(config, tmp_path, request):
    """An epoch is about 33 batches of one task: positions are before, in and after its ends."""
    two_tasks = dataclasses.replace(
        config, denoisers=(DenoiserConfig(), DenoiserConfig(0.5, 8.0, weight=2.0))
    )
    expected = []
    for name, settings in (("one", config), ("two", two_tasks)):
        (tmp_path / f"{name}.json").write_text(json.dumps(dataclasses.asdict(settings)))
        batches = train_batches(settings, 4)
        stream: list[dict[str, np.ndarray]] = []
        for position in POSITIONS:
            stream += take(batches, position - len(stream))
            (tmp_path / f"{name}{position}").write_bytes(batches.get_state())
        stream += take(batches, 40)
        expected += [fingerprint(stream[p : p + 40]) for p in POSITIONS]
    command = [sys.executable, "-c", RESUME, str(request.path.parent), str(tmp_path)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert shown.stdout.split() == expected, shown.stderr[-2000:]
    assert len(set(expected)) == 2 * len(POSITIONS)


def test_python_ends_while_documents_are_being_read(tmp_path):
    """tf.data reads ahead in threads that call Python, which must not hold up its end."""
    program = (
        "from spade_jax.data.config import DataConfig\n"
        "from spade_jax.data.pipeline import train_batches, validation_batches\n"
        "batches = train_batches(DataConfig(), 2)\n"
        "held_out = iter(validation_batches(DataConfig(), 2))\n"
        "print(len(next(batches)), len(next(held_out)))\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert (shown.returncode, shown.stdout.split()) == (0, ["4", "4"])


def test_position_in_records(config, tmp_path):
    """TFRecord is read by TensorFlow itself, and so has positions of another kind."""
    with tf.io.TFRecordWriter(f"{tmp_path}/a.tfrecord") as writer:
        for document in make_documents(20, 3):
            value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[document.encode()]))
            features = tf.train.Features(feature={"text": value})
            writer.write(tf.train.Example(features=features).SerializeToString())
    source = SourceConfig(kind="tfrecord", train=f"{tmp_path}/a.tfrecord")
    records = dataclasses.replace(config, sources=(source,))
    batches = train_batches(records, 4)
    take(batches, 15)
    state = batches.get_state()
    expected = fingerprint(take(batches, 30))
    again = train_batches(records, 4)
    again.set_state(state)
    assert fingerprint(take(again, 30)) == expected


def test_saving_a_position_changes_nothing(config):
    batches = train_batches(config, 4)
    take(batches, 5)
    batches.get_state()
    going_on = fingerprint(take(batches, 10))
    undisturbed = train_batches(config, 4)
    take(undisturbed, 5)
    assert fingerprint(take(undisturbed, 10)) == going_on


def test_position_of_other_data_is_refused(config):
    state = train_batches(config, 4).get_state()
    for arguments, message in (
        ({"batch_size": 2}, "saved with batch_size = 4, but this run has 2"),
        ({"batch_size": 4, "num_shards": 2}, "saved with num_shards = 1, but this run has 2"),
    ):
        with pytest.raises(DataError, match=message):
            train_batches(config, **arguments).set_state(state)
    other = dataclasses.replace(config, seed=5)
    with pytest.raises(DataError, match="saved with data = "):
        train_batches(other, 4).set_state(state)


def test_damaged_position_is_refused(config):
    from damage import damages, sentence  # Another process, which lacks it, imports this file.

    batches = train_batches(config, 4)
    state = batches.get_state()
    with pytest.raises(DataError, match=r"position in the data: 100 bytes, damaged"):
        batches.set_state(state[:100])
    # And nothing else is raised by any other damage.
    refused = [sentence(partial(batches.set_state, data), DataError) for data in damages(state, 5)]
    assert all(message.startswith("position in the data: ") for message in refused if message)
    assert len([message for message in refused if message]) >= 12


@pytest.mark.parametrize("num_shards", [2, 5])
def test_hosts_read_documents_of_their_own(config, num_shards):
    texts = []
    for shard in range(num_shards):
        batches = train_batches(config, 2, shard_index=shard, num_shards=num_shards)
        rows = [original(config, batch) for batch in take(batches, 80)]
        texts.append(b" ".join(itertools.chain(*rows)))
    documents = [doc for seed in range(3) for doc in make_documents(12, seed)]
    numbers = [document.split()[0].encode() + b" " for document in documents]
    # A number stands behind the last word of another document.
    homes = [[bool(re.search(rb"[^0-9]" + n, text)) for text in texts] for n in numbers]
    # A number may be cut by the border of a segment in every epoch; most are whole somewhere.
    assert {sum(home) for home in homes} <= {0, 1}
    assert sum(map(sum, homes)) > 30


def test_validation_counts_every_token_once(config):
    batches = list(validation_batches(config, 4))
    rows = list(itertools.chain(*(original(config, batch) for batch in batches)))
    assert b"".join(rows) == "".join(make_documents(7, 9)).encode()
    last = batches[-1]["decoder_loss_weights"].sum(axis=1)
    used = int((last > 0).sum())
    assert 0 < used < 4  # The text leaves rows over, which hold nothing at all.
    assert all((values[used:] == 0).all() for values in batches[-1].values())
    assert {values.shape[0] for batch in batches for values in batch.values()} == {4}


def test_validation_is_the_same_every_time(config):
    batches = validation_batches(config, 4)
    first = fingerprint(batches)
    assert fingerprint(batches) == first
    other = dataclasses.replace(config, seed=99, shuffle_buffer=2)
    assert fingerprint(validation_batches(other, 4)) == first


def test_validation_over_hosts_is_validation_on_one(config):
    whole = list(validation_batches(config, 6))
    hosts = [list(validation_batches(config, 2, shard_index=i, num_shards=3)) for i in range(3)]
    assert [len(host) for host in hosts] == [len(whole)] * 3
    for batch, *parts in zip(whole, *hosts):
        for name, values in batch.items():
            np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), values)


def test_validation_limit(config):
    limited = list(validation_batches(config, 4, limit=2))
    assert fingerprint(limited) == fingerprint(take(validation_batches(config, 4), 2))
    assert len(limited) == 2


def test_sources_are_mixed_by_weight(config, tmp_path):
    for letter in "ab":
        write_lines(tmp_path / f"{letter}.txt", [letter * 300] * 20)
    mixture = dataclasses.replace(
        config,
        sources=(
            SourceConfig(kind="text", train=f"{tmp_path}/a.txt", weight=3.0),
            SourceConfig(kind="text", train=f"{tmp_path}/b.txt", weight=1.0),
        ),
    )
    rows = [original(mixture, batch) for batch in take(train_batches(mixture, 10), 120)]
    kinds = [row[:1] for row in itertools.chain(*rows)]
    assert set(kinds) == {b"a", b"b"}
    assert abs(kinds.count(b"a") / 1200 - 0.75) < 3 * np.sqrt(0.75 * 0.25 / 1200)


def test_denoisers_are_mixed_by_weight(config):
    mixture = dataclasses.replace(
        config, denoisers=(DenoiserConfig(weight=1.0), DenoiserConfig(0.5, 30.0, weight=4.0))
    )
    vocabulary = load_vocabulary(mixture)
    few = 0
    for batch in take(train_batches(mixture, 10), 120):
        sentinels = batch["encoder_input_tokens"] >= vocabulary.size - vocabulary.extra_ids
        few += int((sentinels.sum(axis=1) <= 2).sum())
    assert abs(few / 1200 - 0.8) < 3 * np.sqrt(0.8 * 0.2 / 1200)


def test_mixture_validates_each_source_once_for_each_denoiser(config):
    mixture = dataclasses.replace(config, denoisers=(DenoiserConfig(), DenoiserConfig(0.5, 8.0)))
    rows = itertools.chain(*(original(mixture, b) for b in validation_batches(mixture, 4)))
    assert b"".join(rows) == 2 * "".join(make_documents(7, 9)).encode()


def test_equal_definitions_share_a_name(config):
    denoiser = config.denoisers[0]
    task = denoising_task(config.sources[0], denoiser, config)
    assert seqio.TaskRegistry.get(task.name) is task
    again = dataclasses.replace(config, seed=7)
    assert denoising_task(again.sources[0], DenoiserConfig(), again) is task
    assert denoising_mixture(again) is denoising_mixture(config)
    names = {
        denoising_mixture(dataclasses.replace(config, **change)).name
        for change in (
            {},
            {"input_length": 65},
            {"extra_ids": 101},
            {"shuffle_buffer": 5},
            {"document_shuffle_buffer": 5},
            {"denoisers": (DenoiserConfig(0.2),)},
            {"denoisers": (DenoiserConfig(), DenoiserConfig(weight=2.0))},
            {"denoisers": (DenoiserConfig(), DenoiserConfig(weight=3.0))},
            {"sources": (SourceConfig(),)},
        )
    }
    assert len(names) == 9


def test_too_little_text_for_a_batch(config, tmp_path):
    path = write_lines(tmp_path / "a.txt", ["x" * 65 * 3])
    small = dataclasses.replace(
        config, sources=(SourceConfig(kind="text", train=str(path), validation=str(path) + "2"),)
    )
    write_lines(tmp_path / "a.txt2", ["y"])
    length = small.denoisers[0].segment_length(64)
    assert -(-65 * 3 // length) == 3
    assert len(take(train_batches(small, 3), 5)) == 5
    with pytest.raises(DataError, match=r"3 training examples in an epoch .* but a batch of 4"):
        train_batches(small, 4)
    with pytest.raises(DataError, match=r"a\.txt'.*: no document for host 1 of 2"):
        train_batches(small, 1, shard_index=1, num_shards=2)


def test_errors_while_streaming_are_the_same_sentences(config, tmp_path, monkeypatch):
    """Large or remote files are not read through first; here no file is."""
    monkeypatch.setattr(sources, "CHECKED_BYTES", -1)
    lines = make_documents(40, 0)
    path = tmp_path / "late.txt"
    path.write_bytes("\n".join(lines).encode() + b"\ncaf\xe9\n")
    late = dataclasses.replace(
        config, sources=(SourceConfig(kind="text", train=str(path), validation=str(path) + "2"),)
    )
    write_lines(tmp_path / "late.txt2", ["fine", "fine"])
    batches = train_batches(late, 2)
    with pytest.raises(DataError, match=r"late\.txt, line 41: is not UTF-8"):
        take(batches, 100)
    (tmp_path / "late.txt2").write_bytes(b"\xff\n")
    with pytest.raises(DataError, match=r"late\.txt2, line 1: is not UTF-8"):
        list(validation_batches(late, 2))


def test_validation_must_be_there(config):
    source = dataclasses.replace(config.sources[0], validation="")
    without = dataclasses.replace(config, sources=(source,))
    assert len(take(train_batches(without, 2), 2)) == 2
    with pytest.raises(DataError, match=r"data.sources.validation = '': no source has validation"):
        validation_batches(without, 2)


def test_shipped_text_fills_batches_of_its_own():
    config = DataConfig()
    batch = next(train_batches(config, 8))
    assert batch["encoder_input_tokens"].shape == (8, 512)
    assert batch["decoder_target_tokens"].shape == (8, 114)
    texts = [load_vocabulary(config).decode(row) for row in batch["encoder_input_tokens"]]
    assert all("<extra_id_0>" in text and "<extra_id_27>" in text for text in texts)
    tokens = sum(
        int(b["decoder_loss_weights"].sum()) for b in validation_batches(config, 8, limit=3)
    )
    assert tokens == 3 * 8 * 114


def test_unigram_cross_entropy():
    def batch(targets, weights):
        targets = np.array(targets)
        counted = Seq2SeqBatch.unpacked(np.ones_like(targets), targets)
        return dataclasses.replace(counted, weights=np.array(weights)).named()

    train = [batch([[1, 1, 2, 0]], [[1, 1, 1, 0]]), batch([[3]], [[1]])]
    validation = [batch([[1, 2]], [[1, 1]]), batch([[0, 0]], [[1, 0]])]
    # Counts 0, 2, 1, 1 of v = 4, plus one each: probabilities 1/8, 3/8, 2/8, 2/8.
    expected = -(np.log(3 / 8) + np.log(2 / 8) + np.log(1 / 8)) / 3
    np.testing.assert_allclose(unigram_cross_entropy(train, validation, 4), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size = 0: must be at least 1"),
        ({"batch_size": 2, "num_shards": 0}, "num_shards = 0"),
        ({"batch_size": 2, "shard_index": 2, "num_shards": 2}, "shard_index = 2: .* below .* 2"),
    ],
)
@pytest.mark.parametrize("make", [train_batches, validation_batches])
def test_impossible_arguments(config, make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(config, **arguments)
