"""A cache is of the data that a run wants, and whole, or is refused."""

import dataclasses
import json
from pathlib import Path

import pytest
from caches import NUM_SHARDS
from streams import take

from spade_jax.data.config import DataError, DenoiserConfig, SourceConfig
from spade_jax.data.pipeline import digest_data, train_batches, validation_batches


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


def test_what_a_cache_holds_is_told_by_its_checksums(config, copy):
    found = digest_data(config)
    assert found == digest_data(copy)
    manifest = json.loads((Path(config.cache) / "cache.json").read_text())
    assert found == {"data.cache": {f["name"]: f"{f['crc32']:08x}" for f in manifest["files"]}}
