"""Validation read directly: all of it, the same every time."""

import dataclasses
import itertools

import numpy as np
import pytest
from corpora import make_documents
from streams import fingerprint, original, take

from spade_jax.data.config import DataError, DenoiserConfig
from spade_jax.data.pipeline import train_batches, validation_batches


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
    assert first == "37e056afa23f1761"  # Or losses of different versions do not compare.
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


def test_mixture_validates_each_source_once_for_each_denoiser(config):
    mixture = dataclasses.replace(config, denoisers=(DenoiserConfig(), DenoiserConfig(0.5, 8.0)))
    rows = itertools.chain(*(original(mixture, b) for b in validation_batches(mixture, 4)))
    assert b"".join(rows) == 2 * "".join(make_documents(7, 9)).encode()


def test_validation_must_be_there(config):
    source = dataclasses.replace(config.sources[0], validation="")
    without = dataclasses.replace(config, sources=(source,))
    assert len(take(train_batches(without, 2), 2)) == 2
    with pytest.raises(DataError, match=r"data.sources.validation = '': no source has validation"):
        validation_batches(without, 2)
