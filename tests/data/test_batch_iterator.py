"""Positions in a stream of batches: saved, gone on from, and refused."""

import dataclasses
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from corpora import make_documents
from damage import damages, sentence
from streams import fingerprint, take

from spade_jax.data._tensorflow import tf
from spade_jax.data.config import DataError, DenoiserConfig, SourceConfig
from spade_jax.data.pipeline import train_batches

POSITIONS = (0, 1, 29, 70)


def test_position_is_exact_in_another_process(config, tmp_path):
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
    program = Path(__file__).with_name("resumed.py")
    shown = subprocess.run(
        [sys.executable, program, tmp_path, *map(str, POSITIONS)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    *found, features, more_features = shown.stdout.split()
    assert found == expected, shown.stderr[-2000:]
    assert len(set(expected)) == 2 * len(POSITIONS)
    # And Python ends, though documents are being read.
    assert (shown.returncode, features, more_features) == (0, "4", "4")
    assert "Exception" not in shown.stderr


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
    batches = train_batches(config, 4)
    state = batches.get_state()
    with pytest.raises(DataError, match=r"position in the data: 100 bytes, damaged"):
        batches.set_state(state[:100])
    # And nothing else is raised by any other damage.
    refused = [sentence(partial(batches.set_state, data), DataError) for data in damages(state, 5)]
    assert all(message.startswith("position in the data: ") for message in refused if message)
    assert len([message for message in refused if message]) >= 12
