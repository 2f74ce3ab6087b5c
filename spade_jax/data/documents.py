"""The documents in a file: text, JSON lines or TFRecord, plain or gzip.

"Document i of file f" is a pure function of f and i, so that tf.data can save and restore a
position in it; that files stay open in between is only a matter of speed.
"""

import collections
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from spade_jax.data._tensorflow import first_line, tf
from spade_jax.data.config import DataError, SourceConfig
from spade_jax.data.text_files import read_file, read_json, read_lines
from spade_jax.data.utf8 import decode_utf8

_OPEN_FILES = 64


def read_documents(path: str, config: SourceConfig) -> Iterator[bytes]:
    """UTF-8 documents of one file of any kind; blank ones are left out.

    Raises:
      DataError: a file that is missing, empty, truncated or not UTF-8, a line that is not JSON
        or lacks the field, a record that is no `tf.train.Example` or lacks the feature.
    """
    count = 0
    if config.kind == "tfrecord":
        documents = _read_records(path, config.field)
    else:
        documents = _read_texts(path, config.kind, config.field)
    for document in documents:
        if document and not document.isspace():
            yield document
            count += 1
    if count == 0:
        raise DataError(f"{path}: holds no text; must have at least one document")


def _read_records(path: str, field: str) -> Iterator[bytes]:
    compression = "GZIP" if path.endswith(".gz") else ""
    records = tf.data.TFRecordDataset(path, compression_type=compression)
    try:
        for number, record in enumerate(records.as_numpy_iterator(), start=1):
            yield read_example(record, field, f"{path}, record {number}")
    except tf.errors.OpError as error:
        raise DataError(f"{path}: {first_line(error)}") from None


def _read_texts(path: str, kind: str, field: str) -> Iterator[bytes]:
    texts = [read_file(path)] if kind == "files" else read_lines(path)
    for number, line in enumerate(texts, start=1):
        where = path if kind == "files" else f"{path}, line {number}"
        text = decode_utf8(line, where, first=number == 1)
        if kind in ("jsonl", "sotu") and text.strip():
            text = _json_field(text, field, where)
        try:
            yield text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(f"{where}: is not Unicode text ({error.reason})") from None


def _json_field(line: str, field: str, where: str) -> str:
    record = read_json(line, where)
    if field not in record:
        raise _no_field(where, "field", field, record)
    if not isinstance(record[field], str):
        raise DataError(
            f"{where}: field {field!r} is {type(record[field]).__name__}; must be a string"
        )
    return record[field]


def read_example(record: bytes, field: str, where: str) -> bytes:
    """The UTF-8 text in a serialised `tf.train.Example`.

    Raises:
      DataError: it is none, lacks the feature, or the feature is not one UTF-8 string.
    """
    try:
        features = tf.train.Example.FromString(record).features.feature
    except Exception:  # Which kind depends on the implementation of protobuf.
        raise DataError(f"{where}: is not a tf.train.Example") from None
    if field not in features:
        raise _no_field(where, "feature", field, features)
    values = features[field].bytes_list.value
    if len(values) != 1:
        raise DataError(f"{where}: feature {field!r} is {len(values)} byte strings; must be one")
    decode_utf8(values[0], where)
    return values[0]


def _no_field(where: str, what: str, field: str, record: Any) -> DataError:
    return DataError(
        f"{where}: has no {what} {field!r}, but {', '.join(map(repr, sorted(record)))}; "
        "set data.sources.field"
    )


class DocumentReader:
    """Documents of files as tf.data."""

    def __init__(self, config: SourceConfig):
        self._config = config
        self._open: collections.OrderedDict[tuple[str, int], Iterator[bytes]] = (
            collections.OrderedDict()
        )
        self._lock = threading.Lock()

    def documents(self, path: tf.Tensor, shard: int, num_shards: int) -> tf.data.Dataset:
        """Every num_shards-th document of a file, bytes [], beginning with number `shard`."""
        if self._config.kind == "tfrecord":
            return self._records(path).shard(num_shards, shard).map(_second)

        def read(state, index):
            found, text = tf.numpy_function(
                self._document, [path, index, num_shards], [tf.bool, tf.string], stateful=False
            )
            return state, (tf.ensure_shape(found, []), tf.ensure_shape(text, []))

        indices = tf.data.Dataset.range(shard, np.iinfo(np.int64).max, num_shards)
        # A scan, for tf.data runs a map in parallel where it thinks best, and so out of order.
        return indices.scan(0, read).take_while(_first).map(_second)

    def _document(self, path: bytes, index: int, stride: int) -> tuple[np.bool_, bytes]:
        """Whether a file has a document `index`, and that document.

        Leaves the file open for document `index + stride`.
        """
        name, index, stride = path.decode(), int(index), int(stride)
        with self._lock:
            documents = self._open.pop((name, index), None)
        if documents is None:
            documents = read_documents(name, self._config)
            _skip(documents, index)
        text = next(documents, None)
        if text is None:
            return np.bool_(False), b""
        _skip(documents, stride - 1)
        with self._lock:
            self._open[name, index + stride] = documents
            if len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)
        return np.bool_(True), text

    def _records(self, path: tf.Tensor) -> tf.data.Dataset:
        """Documents of a TFRecord file with their numbers, which TensorFlow itself reads."""
        compression = tf.where(tf.strings.regex_full_match(path, r".*\.gz"), "GZIP", "")
        records = tf.data.TFRecordDataset(path, compression_type=compression)

        def parse(number, record):
            text = tf.numpy_function(
                self._example, [path, number, record], tf.string, stateful=False
            )
            return number, tf.ensure_shape(text, [])

        return records.enumerate(1).map(parse)

    def _example(self, path: bytes, number: int, record: bytes) -> bytes:
        return read_example(record, self._config.field, f"{path.decode()}, record {number}")


def _skip(documents: Iterator[bytes], count: int) -> None:
    for _ in range(count):
        if next(documents, None) is None:
            return


def _first(first, _):
    return first


def _second(_, second):
    return second
