"""A vocabulary as Transformers' tokenizer, with the same ids.

Bytes are its ByT5Tokenizer, whose sentinels are written down, for its own ascend. SentencePiece
models are written out for PreTrainedTokenizerFast: its T5Tokenizer knows no bytes for characters
that the vocabulary lacks.

Special tokens within a text, such as "</s>", become the special ids there; ours have no such way
in, but for sentinels. A text's outer white space counts with bytes, and does not with ours.
"""

import base64
from typing import Any

import sentencepiece.sentencepiece_model_pb2
import seqio

from spade_jax.config import ConfigError
from spade_jax.data.vocabulary import PAD_ID, Vocabulary

Json = dict[str, Any]
_PROTO: Any = sentencepiece.sentencepiece_model_pb2


def tokenizer_files(vocabulary: Vocabulary, input_length: int | None) -> dict[str, Json]:
    """The files of a tokenizer by name, as what they hold.

    Raises:
      ConfigError: a SentencePiece model of another kind than unigram or BPE.
    """
    end = vocabulary.size - vocabulary.extra_ids
    sentinels = {
        vocabulary.size - 1 - i: f"<extra_id_{i}>" for i in reversed(range(vocabulary.extra_ids))
    }
    settings: Json = {
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "extra_ids": 0,
        "additional_special_tokens": [*sentinels.values()],
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    if input_length is not None:
        settings["model_max_length"] = input_length
    special = {PAD_ID: "<pad>", vocabulary.eos_id: "</s>", vocabulary.unk_id: "<unk>"}
    if isinstance(vocabulary.seqio, seqio.ByteVocabulary):
        added = {str(id): _added(text) for id, text in (special | sentinels).items()}
        settings |= {"tokenizer_class": "ByT5Tokenizer", "added_tokens_decoder": added}
        return {"tokenizer_config.json": settings}
    model = _PROTO.ModelProto.FromString(vocabulary.seqio.sp_model)
    pieces = model.pieces[:end]
    special = {id: pieces[id].piece for id in special}
    names = ("pad_token", "eos_token", "unk_token")
    settings |= dict(zip(names, special.values()))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    return {
        "tokenizer_config.json": settings,
        "tokenizer.json": {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                {"id": id, **_added(text)} for id, text in sorted((special | sentinels).items())
            ],
            "normalizer": _normalizer(model.normalizer_spec),
            "pre_tokenizer": _spaces(model.normalizer_spec),
            "post_processor": _ending(special[vocabulary.eos_id], vocabulary.eos_id),
            "decoder": {
                "type": "Sequence",
                "decoders": [
                    {"type": "ByteFallback"},
                    _spaces(model.normalizer_spec),
                ],
            },
            "model": _model(model, pieces, vocabulary.unk_id),
        },
    }


def _added(text: str) -> Json:
    return {
        "content": text,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def _normalizer(spec: Any) -> Json | None:
    """SentencePiece's map of characters, and its one space for several."""
    steps: list[Json] = []
    if spec.precompiled_charsmap:
        text = base64.b64encode(spec.precompiled_charsmap).decode("ascii")
        steps.append({"type": "Precompiled", "precompiled_charsmap": text})
    if spec.remove_extra_whitespaces:
        steps.append({"type": "Strip", "strip_left": True, "strip_right": True})
        steps.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
    return {"type": "Sequence", "normalizers": steps} if steps else None


def _spaces(spec: Any) -> Json:
    """Spaces as SentencePiece writes them."""
    scheme = "always" if spec.add_dummy_prefix else "never"
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False}


def _ending(piece: str, eos_id: int) -> Json:
    """What puts the end behind a text."""
    text, end = (
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": piece, "type_id": 0}},
    )
    other = {"Sequence": {"id": "B", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [text, end],
        "pair": [text, end, other, end],
        "special_tokens": {piece: {"id": piece, "ids": [eos_id], "tokens": [piece]}},
    }


def _model(model: Any, pieces: Any, unk_id: int) -> Json:
    """The pieces, as the kind of model that they are of."""
    byte_fallback = model.trainer_spec.byte_fallback
    kinds = type(model.trainer_spec)
    if model.trainer_spec.model_type == kinds.UNIGRAM:
        return {
            "type": "Unigram",
            "unk_id": unk_id,
            "vocab": [[piece.piece, piece.score] for piece in pieces],
            "byte_fallback": byte_fallback,
        }
    if model.trainer_spec.model_type == kinds.BPE:
        return {
            "type": "BPE",
            "dropout": None,
            "unk_token": pieces[unk_id].piece,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": byte_fallback,
            "ignore_merges": False,
            "vocab": {piece.piece: id for id, piece in enumerate(pieces)},
            "merges": _merges(pieces),
        }
    raise ConfigError(
        "data.vocabulary: is a SentencePiece model of words or characters; must be unigram or BPE "
        "in a folder for transformers"
    )


def _merges(pieces: Any) -> list[list[str]]:
    """Of BPE: all ways to make a piece of two others, those of the best pieces first."""
    scores = {piece.piece: piece.score for piece in pieces if piece.type == piece.NORMAL}
    found: list[tuple[float, int, int, list[str]]] = []
    ranks = {piece.piece: rank for rank, piece in enumerate(pieces)}
    for whole, score in scores.items():
        for cut in range(1, len(whole)):
            left, right = whole[:cut], whole[cut:]
            if left in scores and right in scores:
                found.append((-score, ranks[left], ranks[right], [left, right]))
    return [pair for *_, pair in sorted(found)]
