"""The documents of each kind of file, and what is said of files at fault."""

import gzip
import json

import numpy as np
import pytest
from corpora import make_documents, write_lines
from reading import read, text_source

from spade_jax.data._tensorflow import tf
from spade_jax.data.config import DataError, SourceConfig
from spade_jax.data.sources import check_source


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
