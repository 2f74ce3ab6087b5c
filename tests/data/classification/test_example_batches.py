"""Batches of examples: their order, hosts and positions, and passes over what is held out."""

import dataclasses
import json

import numpy as np
import pytest
from streams import assert_equal, fingerprint, take

from spade_jax.config import ConfigError
from spade_jax.data.classification.batches import evaluation_batches, train_batches
from spade_jax.data.classification.examples import load_data
from spade_jax.data.config import DataError


@pytest.fixture(scope="module")
def data(texts):
    return load_data(texts)


def rows(batches) -> list[tuple]:
    return [tuple(row) for batch in batches for row in batch["inputs"]]


def test_an_epoch_has_each_example_once_in_an_order_of_its_own(data):
    found = rows(take(train_batches(data, 20), 5))  # Two epochs of 50, and batches across them.
    everything = {tuple(row) for row in data.splits["train"].batch(np.arange(50))["inputs"]}
    assert set(found[:50]) == set(found[50:]) == everything
    assert found[:50] != found[50:]


def test_the_seed_decides_the_order(data):
    first = take(train_batches(data, 8), 3)
    assert fingerprint(first) == "3ed2334bcc3ac936"
    other = dataclasses.replace(data, config=dataclasses.replace(data.config, seed=6))
    assert rows(take(train_batches(other, 8), 3)) != rows(first)


def test_any_number_of_hosts_has_the_same_batches_and_positions(data):
    one = train_batches(data, 12)
    hosts = [train_batches(data, 4, shard_index=i, num_shards=3) for i in range(3)]
    for _ in range(6):
        parts = [next(host) for host in hosts]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        assert_equal(next(one), joined)
    position = one.get_state()
    assert position == hosts[2].get_state()
    expected = take(one, 5)
    again = train_batches(data, 12)
    again.set_state(position)
    for batch, other in zip(expected, take(again, 5)):
        assert_equal(batch, other)
    one.set_state(position)  # Back, from another epoch.
    assert fingerprint(take(one, 5)) == fingerprint(expected)


def test_positions_of_something_else(data):
    batches = train_batches(data, 8)
    position = batches.get_state()
    other = dataclasses.replace(data, config=dataclasses.replace(data.config, seed=6))
    with pytest.raises(DataError, match="was saved with seed = 5, but this run has 6"):
        train_batches(other, 8).set_state(position)
    with pytest.raises(DataError, match="was saved with batch_of_all_hosts = 8, but this run has"):
        train_batches(data, 9).set_state(position)
    for damaged in (b"", b"{}", b"[1]", json.dumps({"step": -1}).encode(), b"\xff"):
        with pytest.raises(DataError, match="bytes that are no position in examples"):
            batches.set_state(damaged)


@pytest.mark.parametrize("num_shards", [1, 3])
def test_a_pass_has_each_example_once_and_fills_up_with_rows_of_no_weight(data, num_shards):
    hosts = [
        evaluation_batches(data, "validation", 2, shard_index=i, num_shards=num_shards)
        for i in range(num_shards)
    ]
    parts = [list(host) for host in hosts]
    assert {len(part) for part in parts} == {len(hosts[0])}
    found = [
        (tuple(row), int(label))
        for batches in zip(*parts)
        for batch in batches
        for row, label, weight in zip(batch["inputs"], batch["labels"], batch["weights"])
        if weight
    ]
    everything = data.splits["validation"].batch(np.arange(7))
    assert found == [(tuple(r), int(n)) for r, n in zip(everything["inputs"], everything["labels"])]
    last = parts[-1][-1]
    assert last["weights"][-1] == last["labels"][-1] == last["inputs"][-1].sum() == 0
    assert fingerprint(hosts[0]) == fingerprint(parts[0])  # Every pass is the same.


def test_limits_and_what_is_refused(data, texts):
    assert len(list(evaluation_batches(data, "test", 2, limit=1))) == 1
    with pytest.raises(ConfigError, match="limit = 0: must be at least 1"):
        evaluation_batches(data, "test", 2, limit=0)
    with pytest.raises(
        DataError, match=r"data.train = .*: 50 training examples, but a batch of 51"
    ):
        train_batches(data, 17, num_shards=3)
    no_test = load_data(dataclasses.replace(texts, test=""))
    with pytest.raises(DataError, match=r"data.test = '': names nothing"):
        evaluation_batches(no_test, "test", 2)
