"""Sources: what each kind reads, how it is sharded, and what is said of data at fault."""

import dataclasses
import gzip
import itertools
import json
import shutil
import time

import numpy as np
import pytest
import seqio
import tensorflow_datasets as tfds
from corpora import make_documents, write_lines

from spade_jax.data import sources
from spade_jax.data._tensorflow import tf
from spade_jax.data.config import DataError, SourceConfig
from spade_jax.data.sources import (
    DocumentSource,
    check_source,
    check_sources,
    digest_sources,
    iterate_documents,
    list_files,
)


def read(config: SourceConfig, split: str = "train") -> list[str]:
    return [document.decode() for document in iterate_documents(config, split)]


def text_source(path, **changes) -> SourceConfig:
    return SourceConfig(kind="text", train=str(path), **changes)


def write_records(path, documents: list[bytes], feature: str = "text", options: str = ""):
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for document in documents:
            value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[document]))
            example = tf.train.Example(features=tf.train.Features(feature={feature: value}))
            writer.write(example.SerializeToString())
    return path


def test_shipped_text():
    train, validation = read(SourceConfig(), "train"), read(SourceConfig(), "validation")
    assert (len(train), len(validation)) == (210, 23)
    assert not set(train) & set(validation)
    assert train[0].startswith("Fellow-Citizens of the Senate and House of Representatives")
    assert sum(len(document.encode()) for document in train) == 9_399_666


def test_text_lines_plain_and_gzip(corpus):
    source = SourceConfig(
        kind="text",
        train=f"{corpus}/train*",
        validation=(f"{corpus}/validation.txt",),
    )
    assert set(read(source)) == set(
        make_documents(12, 0) + make_documents(12, 1) + make_documents(12, 2)
    )
    assert read(source, "validation") == make_documents(7, 9)


def test_line_ends_byte_order_mark_and_blank_lines(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufefföne\r\n\n  \ntwo\x0bstill two\nthree".encode())
    assert read(text_source(tmp_path / "a.txt")) == ["öne", "two\x0bstill two", "three"]


def test_whole_files(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\nstill one\n")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"two\n"))
    source = SourceConfig(kind="files", train=f"{tmp_path}/a.txt,{tmp_path}/*.gz")
    assert sorted(read(source)) == ["one\n\nstill one\n", "two\n"]


def test_json_lines(tmp_path):
    records = [{"id": i, "body": f"línea {i}\nsecond"} for i in range(3)]
    write_lines(tmp_path / "a.jsonl.gz", [json.dumps(r) for r in records] + [""])
    source = SourceConfig(kind="jsonl", train=str(tmp_path / "a.jsonl.gz"), field="body")
    assert read(source) == [r["body"] for r in records]


@pytest.mark.parametrize("name", ["a.tfrecord", "a.tfrecord.gz"])
def test_tfrecord(tmp_path, name):
    documents = ["one", "zwölf", "three"]
    path = write_records(
        tmp_path / name, [d.encode() for d in documents], "body", "GZIP" if "gz" in name else ""
    )
    assert read(SourceConfig(kind="tfrecord", train=str(path), field="body")) == documents


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"a\.txt: holds no text; must have at least one document"),
        (b"\n \n", r"a\.txt: holds no text"),
        (b"fine\ncaf\xe9 au lait\n", r"a\.txt, line 2: is not UTF-8 \(byte 0xe9 at 3\)"),
    ],
)
def test_bad_text(tmp_path, content, message):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        check_source(text_source(tmp_path / "a.txt"), "train")


@pytest.mark.parametrize("lost", [4, 200, 30_000])
def test_truncated_gzip(tmp_path, lost):
    random = np.random.default_rng(0).integers(0, 2**60, 5000)
    whole = gzip.compress("\n".join(map(str, random)).encode())
    (tmp_path / "a.txt.gz").write_bytes(whole[:-lost])
    with pytest.raises(DataError, match=r"a\.txt\.gz: is truncated; must be a whole gzip file"):
        check_source(text_source(tmp_path / "a.txt.gz"), "train")


def test_damaged_gzip(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(b"this is not gzip at all\n")
    with pytest.raises(DataError, match=r"a\.txt\.gz: is damaged or no gzip file"):
        check_source(text_source(tmp_path / "a.txt.gz"), "train")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"body": "x", "id": 1}', r"line 2: has no field 'text', but 'body', 'id'"),
        ('{"text": "x"', r"line 2: is not JSON \(Expecting .* at column 13\)"),
        ('["text"]', r"line 2: is a JSON list; must be an object"),
        ("[" * 100_000, r"line 2: is JSON of too many levels"),
        ('{"text": ' + "9" * 5000 + "}", r"line 2: has a number of more than 4300 digits"),
        ('{"text": ["x"]}', r"line 2: field 'text' is list; must be a string"),
        ('{"text": "\\ud800"}', r"line 2: is not Unicode text"),
    ],
)
def test_bad_json(tmp_path, line, message):
    path = write_lines(tmp_path / "a.jsonl", ['{"text": "fine"}', line])
    with pytest.raises(DataError, match=rf"a\.jsonl, {message}"):
        check_source(SourceConfig(kind="jsonl", train=str(path)), "train")


def test_bad_tfrecord(tmp_path):
    source = SourceConfig(kind="tfrecord", train=f"{tmp_path}/a")
    path = write_records(tmp_path / "a", [b"x" * 100] * 5, "body")
    with pytest.raises(DataError, match=r"/a, record 1: has no feature 'text', but 'body'"):
        check_source(source, "train")
    write_records(path, [b"fine", b"\xff"])
    with pytest.raises(DataError, match=r"/a, record 2: is not UTF-8"):
        check_source(source, "train")
    write_records(path, [b"x" * 100] * 5)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"/a: truncated record at"):
        check_source(source, "train")
    write_records(path, [])
    with pytest.raises(DataError, match=r"/a: holds no text"):
        check_source(source, "train")


@pytest.mark.parametrize("pattern", ["absent.txt", "absent*.txt", "no/such/place/*.txt"])
def test_missing_files(tmp_path, pattern):
    with pytest.raises(DataError, match=r"data\.sources\.train = '.*': no such file"):
        list_files(text_source(tmp_path / pattern), "train")


def test_a_file_counts_once_and_in_one_split(corpus):
    with pytest.raises(DataError, match=r"names .*train0\.txt twice"):
        list_files(text_source(f"{corpus}/train0.txt,{corpus}/train*"), "train")
    both = text_source(f"{corpus}/*", validation=f"{corpus}/validation.txt")
    for split in ("train", "validation"):
        with pytest.raises(DataError, match=r"validation\.txt is in data\.sources\.train as well"):
            check_source(both, split)


def shard_texts(source: DocumentSource, num_shards: int, **options) -> list[list[str]]:
    return [
        [
            example["text"].decode()
            for example in source.get_dataset(
                "train", shard_info=seqio.ShardInfo(i, num_shards), **options
            ).as_numpy_iterator()
        ]
        for i in range(num_shards)
    ]


@pytest.mark.parametrize("num_shards", [2, 3, 5])
def test_shards_partition_the_documents(corpus, num_shards):
    source = DocumentSource(text_source(f"{corpus}/train*"), shuffle_buffer=4)
    documents = set(read(source.config))
    plain = shard_texts(source, num_shards, shuffle=False)
    assert sorted(itertools.chain(*plain)) == sorted(documents)
    assert max(map(len, plain)) - min(map(len, plain)) <= 12
    shuffled = shard_texts(source, num_shards, shuffle=True, seed=3)
    assert [sorted(s) for s in shuffled] == [sorted(s) for s in plain]
    assert shuffled != plain


def test_order_follows_seed_and_changes_with_the_epoch(corpus):
    config = text_source(f"{corpus}/train*")

    def two_epochs(seed: int, salt: int = 0) -> tuple[list[bytes], list[bytes]]:
        source = DocumentSource(config, shuffle_buffer=8, salt=salt)
        dataset = source.get_dataset("train", shuffle=True, seed=seed).repeat(2)
        texts = [example["text"] for example in dataset.as_numpy_iterator()]
        return texts[:36], texts[36:]

    first, second = two_epochs(seed=1)
    assert sorted(first) == sorted(second)
    assert first != second
    assert two_epochs(seed=1) == (first, second)
    assert two_epochs(seed=2)[0] != first
    assert two_epochs(seed=1, salt=1)[0] != first


def test_reading_restarts_anywhere(corpus):
    """A position in a file is worth the same whether the file is open there or not."""
    dataset = DocumentSource(text_source(f"{corpus}/train*")).get_dataset("train", shuffle=False)
    whole = [example["text"] for example in dataset.as_numpy_iterator()]
    assert [e["text"] for e in dataset.skip(17).as_numpy_iterator()] == whole[17:]
    first, second = iter(dataset.as_numpy_iterator()), iter(dataset.as_numpy_iterator())
    interleaved = [(next(first)["text"], next(second)["text"]) for _ in whole]
    assert interleaved == list(zip(whole, whole))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> SourceConfig:
    """A data set with the layout of C4's, prepared on this machine."""
    directory = tmp_path_factory.mktemp("tfds")
    tfds.dataset_builders.store_as_tfds_dataset(
        name="tiny",
        config="en",
        version="3.1.0",
        data_dir=directory,
        description="Made by a test.",
        features=tfds.features.FeaturesDict(
            {"text": tfds.features.Text(), "label": tfds.features.Scalar(tf.int64)}
        ),
        split_datasets={
            split: tf.data.Dataset.from_tensor_slices(
                {"text": make_documents(count, count), "label": list(range(count))}
            )
            for split, count in (("train", 20), ("validation", 5))
        },
    )
    return SourceConfig(
        kind="tfds",
        name="tiny/en:3.1.0",
        data_dir=str(directory),
        train="train",
        validation="validation",
    )


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


@pytest.fixture
def odd_names(tmp_path):
    """Files whose names are globs, or lists, of other files that are there as well."""
    for name in ("r1", "r2", "r[12]", "a", "b", "a.txt,b", "folder[1]/c", "folder1/c", "folder1/d"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_lines(tmp_path / f"{name}.txt", [name])
    return tmp_path


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("{}/r[12].txt", ["r[12]"]),
        (("{}/r[12].txt",), ["r[12]"]),
        ("{}/r[12].txt,{}/a.txt", ["r[12]", "a"]),
        ("{}/r?.txt", ["r1", "r2"]),
        ("{}/a.txt,{}/b.txt", ["a", "b"]),
        ("{}/a.txt,b.txt", ["a.txt,b"]),
        (("{}/a.txt,b.txt", "{}/a.txt"), ["a.txt,b", "a"]),
        ("{}/folder[1]/*.txt", ["folder[1]/c"]),
        ("{}/folder*/c.txt", ["folder1/c", "folder[1]/c"]),
    ],
)
def test_a_path_that_exists_is_no_glob_and_no_list(odd_names, named, expected):
    many = isinstance(named, tuple)
    named = tuple(n.format(odd_names) for n in named) if many else named.format(*[odd_names] * 2)
    source = SourceConfig(kind="text", train=named)
    assert list_files(source, "train") == [f"{odd_names}/{name}.txt" for name in expected]
    assert read(source) == expected


def test_a_file_is_known_by_any_of_its_names(corpus, tmp_path):
    (tmp_path / "link.txt").symlink_to(corpus / "validation.txt")
    with pytest.raises(DataError, match=r"names .*link\.txt twice"):
        list_files(text_source(f"{tmp_path}/link.txt,{corpus}/validation.txt"), "train")
    both = text_source(f"{tmp_path}/link.txt", validation=f"{corpus}/validation.txt")
    with pytest.raises(DataError, match=r"validation\.txt is in data\.sources\.train as well"):
        check_source(both, "train")


def test_what_one_source_trains_on_no_other_validates_on(corpus):
    one = text_source(f"{corpus}/train0.txt", validation=f"{corpus}/validation.txt")
    other = text_source(f"{corpus}/train2.txt", validation=f"{corpus}/train0.txt")
    for split in ("train", "validation"):
        with pytest.raises(DataError, match=r"train0\.txt is in data\.sources\.train as well"):
            check_sources([one, other], split)
    check_sources([one, dataclasses.replace(other, validation="")], "train")
    check_sources([one, one], "validation")


def test_contents_tell_sources_apart(corpus, prepared, tmp_path, monkeypatch):
    path = write_lines(tmp_path / "a.txt", ["The union is a strong one."])
    mine = text_source(path, validation=f"{corpus}/validation.txt")
    found = digest_sources([mine, SourceConfig(), prepared])
    assert [*map(list, found.values())] == [
        [str(path)],
        [f"{corpus}/validation.txt"],
        ["sotu.train.jsonl.gz"],
        ["sotu.validation.jsonl.gz"],
        ["tiny/en/3.1.0 train"],
        ["tiny/en/3.1.0 validation"],
    ]
    assert [*found][:3] == [
        "data.sources.0.train",
        "data.sources.0.validation",
        "data.sources.1.train",
    ]
    assert len({digest for split in found.values() for digest in split.values()}) == 6
    write_lines(path, ["The onion is a strong one."])
    again = digest_sources([mine, SourceConfig(), prepared])
    assert {setting for setting in found if found[setting] != again[setting]} == {
        "data.sources.0.train"
    }
    # Of large files the length has to do.
    monkeypatch.setattr(sources, "DIGESTED_BYTES", 20)
    assert digest_sources([mine])["data.sources.0.train"] == {str(path): "27 bytes"}
