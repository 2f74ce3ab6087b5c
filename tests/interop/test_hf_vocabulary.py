"""Vocabularies of checkpoints: what is taken exactly, and what is refused."""

import json
from typing import Any

import pytest
import sentencepiece.sentencepiece_model_pb2
from pieces import train_pieces

from spade_jax.config import ConfigError, RunError
from spade_jax.data.vocabulary import load_vocabulary
from spade_jax.interop.hf.vocabulary import checkpoint_words, compare_ids

TEXT = ["the state of the union is strong and people have made it so, who knew that is good"] * 9


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    train_pieces(folder / "spiece.model", TEXT, 60, byte_fallback=False)
    return folder


def model_of(path):
    proto: Any = sentencepiece.sentencepiece_model_pb2
    model = proto.ModelProto()
    model.ParseFromString(path.read_bytes())
    return model


def add(path, names):
    model = model_of(path)
    for name in names:
        model.pieces.add(piece=name, score=0.0, type=model.SentencePiece.USER_DEFINED)
    path.write_bytes(model.SerializeToString())


def tokenizer_json(pieces, **changes):
    """As a tokenizer of Hugging Face is saved."""
    spaces = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    return {
        "added_tokens": [{"id": i, "content": pieces[i][0], "special": True} for i in range(3)],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "WhitespaceSplit"}, spaces],
        },
        "model": {"type": "Unigram", "unk_id": 2, "vocab": pieces},
    } | changes


def test_sentinels_within_a_model_become_those_at_its_end(checkpoint, tmp_path):
    """mT5's are pieces of the file."""
    before = load_vocabulary(checkpoint_words(checkpoint, tmp_path))
    assert before.extra_ids == 100
    add(checkpoint / "spiece.model", [f"▁<extra_id_{i}>" for i in (2, 1, 0)])
    (tmp_path / "made").mkdir()
    words = load_vocabulary(checkpoint_words(checkpoint, tmp_path / "made"))
    assert (words.extra_ids, words.size) == (3, before.size - 97)
    assert words.tokens("the <extra_id_0>")[-1] == words.size - 1
    assert words.tokens(TEXT[0]) == before.tokens(TEXT[0])
    add(checkpoint / "spiece.model", ["last"])
    with pytest.raises(
        ConfigError, match=r"sentinels must be its last tokens, down to <extra_id_0>"
    ):
        checkpoint_words(checkpoint, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalizer": {"type": "Lowercase"}}, "normalises by 'Lowercase', which is no Sent"),
        ({"pre_tokenizer": {"type": "ByteLevel"}}, "cuts texts by ['ByteLevel'], which is no"),
        ({"model": {"type": "BPE", "vocab": {}, "merges": []}}, "is of type 'BPE', which is no"),
        ({"model": {"unk_id": 0, "vocab": [["a", 0.0]]}}, "begins with ['a'], and its unknown"),
        ({"model": {"unk_id": 0}}, "is not a tokenizer's file (KeyError('vocab'))"),
        (
            {"added_tokens": [{"id": 9, "content": "<mask>", "special": True}]},
            "has a token '<mask>' of its own at 9",
        ),
    ],
)
def test_what_sentencepiece_does_not_do_is_refused(checkpoint, tmp_path, changes, message):
    pieces = [(piece.piece, piece.score) for piece in model_of(checkpoint / "spiece.model").pieces]
    (checkpoint / "spiece.model").unlink()
    path = checkpoint / "tokenizer.json"
    path.write_text(json.dumps(tokenizer_json(pieces)))
    assert load_vocabulary(checkpoint_words(checkpoint, tmp_path)).size == len(pieces) + 100
    path.write_text(json.dumps(tokenizer_json(pieces, **changes)))
    with pytest.raises(ConfigError) as refusal:
        checkpoint_words(checkpoint, tmp_path)
    assert message in str(refusal.value)


def test_ids_that_differ_are_said(checkpoint, tmp_path):
    pytest.importorskip("tokenizers")
    pieces = [(piece.piece, piece.score) for piece in model_of(checkpoint / "spiece.model").pieces]
    told = tokenizer_json([*pieces[:3], *pieces[:2:-1]], version="1.0")
    for token in told["added_tokens"]:
        token |= dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    (checkpoint / "tokenizer.json").write_text(json.dumps(told))
    words = checkpoint_words(checkpoint, tmp_path)
    with pytest.raises(RunError, match=r"gives other ids than its tokenizer for 'the state"):
        compare_ids(words, checkpoint, samples=(TEXT[0],))
