"""Batches from a cache: their order and mixture, hosts, positions, validation."""

import dataclasses
import itertools
import json
from collections import Counter
from functools import partial
from pathlib import Path

import grain
import numpy as np
import pytest
from caches import NUM_SHARDS, make, segments
from corpora import write_lines
from damage import damages, each_damage, sentence
from streams import assert_equal, fingerprint, original, take

from spade_jax.data.cache import batches as cached
from spade_jax.data.config import DataConfig, DataError, DenoiserConfig, SourceConfig
from spade_jax.data.pipeline import train_batches, validation_batches

BATCH = 24


def joined(hosts: list) -> dict[str, np.ndarray]:
    """The next batch of all hosts."""
    batches = [next(host) for host in hosts]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def readers(config: DataConfig, count: int) -> list:
    return [
        train_batches(config, BATCH // count, shard_index=index, num_shards=count)
        for index in range(count)
    ]


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
def test_layout_is_that_of_reading_directly(config, target_length):
    config = dataclasses.replace(config, target_length=target_length)
    for batch in [*take(train_batches(config, 4), 10), *validation_batches(config, 4)]:
        assert {name: (v.shape, v.dtype) for name, v in batch.items()} == {
            "encoder_input_tokens": ((4, 64), np.int32),
            "decoder_input_tokens": ((4, config.decoder_length), np.int32),
            "decoder_target_tokens": ((4, config.decoder_length), np.int32),
            "decoder_loss_weights": ((4, config.decoder_length), np.int32),
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
    assert fingerprint(take(train_batches(config, BATCH), 12)) == "ee8e8699f01216ca"
    assert fingerprint(validation_batches(config, 18)) == "0e062d09cec38213"
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
    of_text = train_batches(direct, 4)
    with pytest.raises(DataError, match="that are no position in a cache"):
        batches.set_state(of_text.get_state())
    with pytest.raises(DataError, match="position in the data: "):
        of_text.set_state(state)


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
