"""The vocabulary of a checkpoint: spiece.model, or a tokenizer.json that says the same.

Sentinels are no part of a SentencePiece model here: the last of them, `<extra_id_0>`, is the last
token, and T5's are 100.
"""

import base64
import contextlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import sentencepiece.sentencepiece_model_pb2

from spade_jax.config import ConfigError, RunError, require
from spade_jax.data.vocabulary import Vocabulary, load_vocabulary
from spade_jax.interop.hf.config import FILE, T5
from spade_jax.interop.run_folder import Words

SENTENCEPIECE, TOKENIZER, TOKENIZER_CONFIG = (
    "spiece.model",
    "tokenizer.json",
    "tokenizer_config.json",
)
_SENTINEL = re.compile("▁?<extra_id_(0|[1-9][0-9]*)>")
_BYTE = re.compile("<0x[0-9A-F]{2}>")

# Its classes are made when it is imported.
_PROTO: Any = sentencepiece.sentencepiece_model_pb2

# Lines whose ids are compared.
SAMPLES = (
    "The state of the Union is strong, and the people have made it so.",
    "translate English to German: That is good.",
    "In 1984, 3.14 million dollars (about 12%) were paid; who knew?",
    "two  spaces,\ta tab and\na new line ",
    "Déjà vu: naïve façades, Zürich, señor",
    "ﬁne print, ½ price, ＡＢＣ",
)


def checkpoint_words(checkpoint: Path, folder: Path) -> Words:
    """The vocabulary of a checkpoint, as a SentencePiece model without sentinels.

    Args:
      folder: where one is written that must be made first.

    Raises:
      ConfigError: there is none, or none that can be had exactly.
    """
    source = checkpoint / SENTENCEPIECE
    extra_ids = _said_extra_ids(checkpoint)
    if source.is_file():
        model = _PROTO.ModelProto()
        try:
            model.ParseFromString(source.read_bytes())
        except Exception as error:  # A kind of protobuf's own, which depends on its version.
            raise ConfigError(f"{source}: is not a SentencePiece model ({error})") from None
    elif (checkpoint / TOKENIZER).is_file():
        source = checkpoint / TOKENIZER
        model = _converted(source)
    else:
        raise ConfigError(
            f"{checkpoint}: holds neither {SENTENCEPIECE} nor {TOKENIZER}; name a vocabulary with "
            "--vocabulary"
        )
    inside = _drop_sentinels(model, source)
    extra_ids = inside or extra_ids
    if not extra_ids:
        raise ConfigError(f"{checkpoint}: its vocabulary has no sentinels; must have one at least")
    path = folder / SENTENCEPIECE
    if inside or source.name != SENTENCEPIECE:
        path.write_bytes(model.SerializeToString())
    else:
        path.write_bytes(source.read_bytes())
    return Words(str(path), extra_ids)


def _said_extra_ids(checkpoint: Path) -> int:
    """How many sentinels the tokenizer's settings add; T5's 100 where they do not say."""
    with contextlib.suppress(FileNotFoundError):
        path = checkpoint / TOKENIZER_CONFIG
        said = _json(path).get("extra_ids", 100)
        if isinstance(said, bool) or not isinstance(said, int) or said < 0:
            raise ConfigError(f"{path}: extra_ids = {said!r}: must be a whole number")
        return said
    return 100


def _drop_sentinels(model: Any, source: Path) -> int:
    """Takes the sentinels off a model's end, and says how many they were.

    Raises:
      ConfigError: they do not end the vocabulary, counting down to 0.
    """
    found = [_SENTINEL.fullmatch(piece.piece) for piece in model.pieces]
    numbers = [int(match[1]) for match in found if match is not None]
    count = len(numbers)
    if count and (None in found[-count:] or numbers != [*range(count)][::-1]):
        raise ConfigError(
            f"{source}: its sentinels must be its last tokens, down to <extra_id_0>, as T5's are"
        )
    if count:
        del model.pieces[-count:]
    return count


def _json(path: Path) -> Any:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: must be an object of settings")
    return value


def _converted(path: Path) -> Any:
    """A tokenizer.json as the SentencePiece model that gives the same ids.

    Raises:
      ConfigError: it does something that SentencePiece does not.
    """

    def refuse(what: str) -> ConfigError:
        return ConfigError(
            f"{path}: {what}, which is no SentencePiece model's; put the checkpoint's "
            f"{SENTENCEPIECE} beside it, or name a vocabulary with --vocabulary"
        )

    said = _json(path)
    try:
        tokens = said["model"]
        if tokens.get("type", "Unigram") != "Unigram" or "merges" in tokens:
            raise refuse(f"is of type {tokens.get('type')!r}")
        charsmap = _normalisation(said.get("normalizer"), refuse)
        _check_spaces(said.get("pre_tokenizer"), refuse)
        pieces = [(str(piece), float(score)) for piece, score in tokens["vocab"]]
        unknown, byte_fallback = tokens["unk_id"], bool(tokens.get("byte_fallback", False))
        special = {t["id"]: t["content"] for t in said.get("added_tokens", ()) if t["special"]}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path}: is not a tokenizer's file ({error!r})") from None
    known = [piece for piece, _ in pieces[:3]]
    if known[:2] != ["<pad>", "</s>"] or unknown != 2:
        raise refuse(
            f"begins with {known}, and its unknown token is {unknown}; T5's begins with "
            "padding, the end and the unknown token"
        )
    for token, content in sorted(special.items()):
        own = pieces[token][0] if token < len(pieces) else None
        if own is None and _SENTINEL.fullmatch(content) and token == len(pieces):
            pieces.append((content, 0.0))
        elif own != content:
            raise refuse(f"has a token {content!r} of its own at {token}")
    return _model_of(pieces, charsmap, byte_fallback)


def _model_of(pieces: Sequence[tuple[str, float]], charsmap: bytes, byte_fallback: bool) -> Any:
    model = _PROTO.ModelProto()
    kinds = model.SentencePiece
    for i, (piece, score) in enumerate(pieces):
        kind = kinds.CONTROL if i < 2 else kinds.UNKNOWN if i == 2 else kinds.NORMAL
        if byte_fallback and _BYTE.fullmatch(piece):
            kind = kinds.BYTE
        model.pieces.add(piece=piece, score=score, type=kind)
    spec = model.trainer_spec
    spec.model_type = spec.UNIGRAM
    spec.vocab_size, spec.byte_fallback = len(pieces), byte_fallback
    spec.pad_id, spec.eos_id, spec.unk_id, spec.bos_id = 0, 1, 2, -1
    spec.pad_piece, spec.eos_piece, spec.unk_piece = (piece for piece, _ in pieces[:3])
    model.normalizer_spec.name = "nmt_nfkc" if charsmap else "identity"
    model.normalizer_spec.precompiled_charsmap = charsmap
    model.normalizer_spec.add_dummy_prefix = True
    model.normalizer_spec.remove_extra_whitespaces = True
    model.normalizer_spec.escape_whitespaces = True
    return model


def _parts(step: Any, inside: str) -> list[Any]:
    """The steps of a sequence of them, or the one that there is."""
    if step is None:
        return []
    return step[inside] if step["type"] == "Sequence" else [step]


def _normalisation(normalizer: Any, refuse: Callable[[str], ConfigError]) -> bytes:
    """SentencePiece's table of characters in a normalizer; spaces are looked after besides."""
    charsmap = b""
    for step in _parts(normalizer, "normalizers"):
        spaces = step["type"] == "Replace" and step["pattern"] == {"Regex": " {2,}"}
        if step["type"] == "Precompiled":
            charsmap = base64.b64decode(step["precompiled_charsmap"] or "")
        elif not spaces and step["type"] != "Strip":
            raise refuse(f"normalises by {step['type']!r}")
    return charsmap


def _check_spaces(pre_tokenizer: Any, refuse: Callable[[str], ConfigError]) -> None:
    """Raises unless texts are cut at spaces alone, which pieces begin with."""
    steps = _parts(pre_tokenizer, "pretokenizers")
    kinds = [step["type"] for step in steps if step["type"] != "WhitespaceSplit"]
    if kinds != ["Metaspace"]:
        raise refuse(f"cuts texts by {kinds}")
    spaces = steps[-1]
    prefix = spaces.get("prepend_scheme", "always" if spaces.get("add_prefix_space") else "never")
    if spaces["replacement"] != "▁" or prefix == "never":
        raise refuse("writes spaces in another way")


def check_end(words: Words, t5: T5) -> None:
    """Raises ConfigError where texts end otherwise than config.json says."""
    end = load_vocabulary(words).eos_id
    require(
        t5.eos_token_id in (None, end),
        f"{FILE}: eos_token_id",
        t5.eos_token_id,
        f"must be {end}, which ends texts in the vocabulary",
    )


def compare_ids(words: Words, checkpoint: Path, samples: Sequence[str] = SAMPLES) -> str:
    """Compares ids of sample lines with those of the checkpoint's own tokenizer.

    Returns:
      How many were compared, or why none.

    Raises:
      RunError: a line has other ids.
    """
    vocabulary = load_vocabulary(words)
    tokenize = _tokenizer(checkpoint)
    if tokenize is None:
        return "No ids were compared: transformers, or what it needs, is not installed."
    count = 0
    for text in samples:
        own = vocabulary.encode(text)
        if not all(_is_ordinary(vocabulary, token) for token in own):
            continue  # What is unknown is written in bytes, or not, by another rule there.
        theirs = tokenize(text)
        if own != theirs:
            raise RunError(
                f"{checkpoint}: its vocabulary gives other ids than its tokenizer for {text!r}: "
                f"{own} and {theirs}"
            )
        count += 1
    return f"Ids of {count} sample lines are those of the checkpoint's tokenizer."


def _is_ordinary(vocabulary: Vocabulary, token: int) -> bool:
    piece = vocabulary.seqio.tokenizer
    return token != vocabulary.unk_id and not piece.IsByte(token)


def _tokenizer(checkpoint: Path) -> Callable[[str], list[int]] | None:
    """Text to ids without an end, as the checkpoint's own tokenizer gives them; None: cannot."""
    if (checkpoint / TOKENIZER).is_file():
        try:
            import tokenizers
        except ImportError:
            return None
        try:
            reader = tokenizers.Tokenizer.from_file(str(checkpoint / TOKENIZER))
        except Exception as error:  # It raises no other kind.
            raise ConfigError(f"{checkpoint / TOKENIZER}: cannot be read ({error})") from None
        return lambda text: reader.encode(text, add_special_tokens=False).ids
    try:
        from transformers import T5Tokenizer

        slow = T5Tokenizer.from_pretrained(checkpoint)
    except (ImportError, ValueError, OSError):
        return None
    return lambda text: slow(text, add_special_tokens=False)["input_ids"]
