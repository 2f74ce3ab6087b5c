"""Sources: how they are sharded and ordered, and what tells them apart."""

import dataclasses
import itertools

import pytest
from corpora import write_lines
from reading import read, shard_texts, text_source

from spade_jax.data import sources
from spade_jax.data.config import DataError, SourceConfig
from spade_jax.data.sources import DocumentSource, check_sources, digest_sources


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


def test_what_one_source_trains_on_no_other_validates_on(corpus):
    one = text_source(f"{corpus}/train0.txt", validation=f"{corpus}/validation.txt")
    other = text_source(f"{corpus}/train2.txt", validation=f"{corpus}/train0.txt")
    for split in ("train", "validation"):
        with pytest.raises(DataError, match=r"train0\.txt is in data\.sources\.train as well"):
            check_sources([one, other], split)
    check_sources([one, dataclasses.replace(other, validation="")], "train")
    check_sources([one, one], "validation")


def test_all_files_of_another_encoding_are_named_at_once(corpus, tmp_path):
    """Those of both splits and of all sources, with where each is at fault first."""
    for name, text in {"a": "caf\xe9\nna\xefve", "b": "good", "c": "ok\n\xa3", "d": "\xfc"}.items():
        (tmp_path / f"{name}.txt").write_bytes(text.encode("latin1"))
    one = text_source(f"{tmp_path}/[ab].txt", validation=f"{tmp_path}/d.txt")
    other = text_source(f"{tmp_path}/c.txt")
    with pytest.raises(DataError) as caught:
        check_sources([one, other], "validation")
    assert str(caught.value) == (
        f"{tmp_path}/d.txt, line 1 (byte 0xfc at 0); {tmp_path}/a.txt, line 1 (byte 0xe9 at 3); "
        f"{tmp_path}/c.txt, line 2 (byte 0xa3 at 0): are not UTF-8; must be UTF-8, which `iconv -f "
        "latin1 -t utf-8` makes of Latin-1, for instance"
    )
    with pytest.raises(
        DataError, match=r"c\.txt, line 2: is not UTF-8 \(byte 0xa3 at 0\); must be"
    ):
        check_sources([other, text_source(f"{corpus}/train0.txt")], "train")


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
