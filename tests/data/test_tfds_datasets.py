"""Data sets of TFDS that were prepared before: what is read, and what is said at once."""

import dataclasses
import itertools
import json
import shutil
import time

import pytest
from corpora import make_documents
from reading import read, shard_texts

from spade_jax.data.config import DataError
from spade_jax.data.sources import DocumentSource, check_source


def test_tfds(prepared):
    assert set(read(prepared)) == set(make_documents(20, 20))
    assert set(read(prepared, "validation")) == set(make_documents(5, 5))
    newest = dataclasses.replace(prepared, name="tiny/en")
    assert set(read(newest)) == set(make_documents(20, 20))
    parts = dataclasses.replace(prepared, train="train[:30%],train[50%:]")
    assert len(read(parts)) == 16


@pytest.mark.parametrize("num_shards", [1, 3, 8])
def test_tfds_shards_partition_the_documents(prepared, num_shards):
    source = DocumentSource(prepared, shuffle_buffer=4)
    shards = shard_texts(source, num_shards, shuffle=False)
    assert sorted(itertools.chain(*shards)) == sorted(make_documents(20, 20))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    shuffled = shard_texts(source, num_shards, shuffle=True, seed=3)
    assert [sorted(s) for s in shuffled] == [sorted(s) for s in shards]


def test_other_folders_are_no_versions_of_tfds(prepared, tmp_path):
    for name in ("²", "1..2"):
        (tmp_path / "tiny/de" / name).mkdir(parents=True)
    changes = {"name": "tiny/de", "data_dir": str(tmp_path)}
    with pytest.raises(DataError, match="name = 'tiny/de': no data set in"):
        check_source(dataclasses.replace(prepared, **changes), "train")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "tiny/en:3.2.0"}, r"name = 'tiny/en:3.2.0': no data set in .*tiny/en/3.2.0"),
        ({"name": "c4/en:3.1.0"}, r"name = 'c4/en:3.1.0': no data set in .*tfds build c4/en"),
        ({"name": "c4/en"}, r"name = 'c4/en': no data set"),
        ({"data_dir": "/no/such/place"}, r"no data set in /no/such/place"),
        ({"field": "texts"}, r"field = 'texts': .*did you mean 'text'"),
        ({"field": "label"}, r"field = 'label': .* no such text feature"),
        ({"train": "trian"}, r"train = 'trian': no such split .*train \(20 examples\)"),
        ({"train": "train[:"}, r"train = 'train\[:': no such split"),
        ({"validation": "test"}, r"validation = 'test': no such split"),
        ({"validation": "train[90%:]"}, r"validation = 'train\[90%:\]': overlaps .*= 'train'"),
    ],
)
def test_tfds_that_is_not_there_is_said_at_once(prepared, changes, message):
    start = time.monotonic()
    with pytest.raises(DataError, match=message):
        check_source(dataclasses.replace(prepared, **changes), "train")
    assert time.monotonic() - start < 60.0  # tfds would try again for minutes


def test_disjoint_slices_of_one_tfds_split(prepared):
    slices = dataclasses.replace(prepared, train="train[:90%]", validation="train[90%:]")
    check_source(slices, "validation")
    train, validation = read(slices), read(slices, "validation")
    assert (len(train), len(validation)) == (18, 2)
    assert not set(train) & set(validation)


@pytest.mark.parametrize(
    "feature",
    [
        {"pythonClassName": "brought.Along", "text": {}},
        {"python_class_name": "brought.Along", "text": {}},
        {"type": "brought.Along", "content": {}},
        {
            "pythonClassName": "tensorflow_datasets.core.features.sequence_feature.Sequence",
            "jsonFeature": {
                "json": json.dumps(
                    {"feature": {"type": "brought.Along", "content": {}}, "length": None}
                )
            },
        },
    ],
)
def test_tfds_brings_no_code_of_its_own(prepared, tmp_path, monkeypatch, feature):
    """The module stands where Python looks for modules; that it was imported, it would tell."""
    shutil.copytree(prepared.data_dir, tmp_path / "data")
    path = tmp_path / "data" / "tiny" / "en" / "3.1.0" / "features.json"
    features = json.loads(path.read_text())
    features["featuresDict"]["features"]["more"] = feature
    path.write_text(json.dumps(features))
    (tmp_path / "brought.py").write_text("open('imported', 'w')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    source = dataclasses.replace(prepared, data_dir=str(tmp_path / "data"))
    with pytest.raises(DataError, match=r"features.json: names the feature class 'brought.Along';"):
        check_source(source, "train")
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000])
def test_a_tfds_description_that_cannot_be_read(prepared, tmp_path, content):
    shutil.copytree(prepared.data_dir, tmp_path / "data")
    (tmp_path / "data" / "tiny" / "en" / "3.1.0" / "features.json").write_text(content)
    source = dataclasses.replace(prepared, data_dir=str(tmp_path / "data"))
    with pytest.raises(DataError, match=r"features.json: cannot be read \(\w+\); prepare"):
        check_source(source, "train")
