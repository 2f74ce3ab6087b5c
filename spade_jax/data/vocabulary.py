"""Vocabularies: bytes out of the box, SentencePiece from a local file, sentinels at the end."""

import functools
import hashlib
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import seqio
from etils import epath

from spade_jax.data.config import DataError

PAD_ID = 0

# As `Vocabulary.text` writes them; what has more zeros is text like any other.
_SENTINEL = re.compile(r"<extra_id_(0|[1-9][0-9]*)>")


class Vocabulary:
    """Tokens and their meaning, with `extra_ids` sentinels counting down from the last id.

    Attributes:
      seqio: the seqio vocabulary underneath.
      size: v, sentinels included.
      eos_id: ends inputs and targets. Padding, and the start of decoder inputs, is 0.
      unk_id: stands for characters that the vocabulary lacks; of bytes it stands for none.
      extra_ids: number of sentinels.
      digest: SHA-256 of everything that gives ids their meaning; equal for equal vocabularies.
      token_bytes: int32 [v], UTF-8 bytes that each token stands for; 0 for special tokens and
        sentinels. Of SentencePiece, bytes of the text as its normalisation leaves it.
    """

    def __init__(self, seqio_vocabulary: seqio.Vocabulary, definition: bytes, pieces: list[bytes]):
        """Wraps a seqio vocabulary; `pieces` are the bytes of each token before the sentinels."""
        self.seqio = seqio_vocabulary
        self.size: int = seqio_vocabulary.vocab_size
        self.eos_id: int = seqio_vocabulary.eos_id
        self.unk_id: int = seqio_vocabulary.unk_id
        self.extra_ids: int = seqio_vocabulary.extra_ids
        self.digest = hashlib.sha256(definition + b"%d" % self.extra_ids).hexdigest()
        self.token_bytes = np.zeros(self.size, np.int32)
        self.token_bytes[: len(pieces)] = [len(piece) for piece in pieces]
        self._pieces = pieces

    def encode(self, text: str) -> list[int]:
        """Ids of a document as it stands, without EOS; it has no sentinels."""
        return list(self.seqio.encode(text))

    def tokens(self, text: str) -> list[int]:
        """Ids of an input or a target, without EOS.

        The one way from such a text to what a model reads, in training, evaluation and decoding.
        White space around the text does not count, and `<extra_id_i>` is sentinel i.

        Raises:
          DataError: a sentinel that the vocabulary does not have.
        """
        self.check_sentinels(text)
        # re.split puts the sentinels' numbers at odd places.
        texts = _SENTINEL.split(text.strip())
        ids = self.encode(texts[0])
        for sentinel, after in zip(texts[1::2], texts[2::2]):
            ids += [self.size - 1 - int(sentinel), *self.encode(after)]
        return ids

    def text(self, ids: Iterable[int]) -> str:
        """What a model has written, or a person typed: the way back from `tokens`."""
        return self.decode(ids).strip()

    def rewritten(self, text: str) -> str:
        """A text as a model can write it: with what the vocabulary changes or lacks."""
        return self.text(self.tokens(text))

    def ended(self, tokens: list[int], length: int) -> list[int]:
        """At most `length` tokens, of which EOS is the last."""
        return [*tokens[: length - 1], self.eos_id]

    def check_sentinels(self, text: str) -> None:
        """Raises DataError for a sentinel in `text` that the vocabulary does not have."""
        for number in _SENTINEL.findall(text):
            # Python reads no numbers of thousands of digits.
            if len(number) > 9 or int(number) >= self.extra_ids:
                there = f"<extra_id_0> to <extra_id_{self.extra_ids - 1}>"
                raise DataError(
                    f"<extra_id_{number:.20}>: no such sentinel; the vocabulary has "
                    f"{there if self.extra_ids else 'none'}"
                )

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids` up to the first EOS, sentinel i as `<extra_id_i>`.

        Any ids will do: bytes that make no UTF-8 become U+FFFD, padding becomes nothing.
        """
        parts: list[str] = []
        run: list[int] = []
        for token in map(int, ids):
            if token == self.eos_id:
                break
            sentinel = self.sentinel_index(token)
            if sentinel is None:
                run.append(token)
            else:
                parts += [self._decode_run(run), f"<extra_id_{sentinel}>"]
                run = []
        return "".join(parts) + self._decode_run(run)

    def piece(self, token: int) -> bytes:
        """What a token stands for in a text, which is nothing of special ones and sentinels."""
        return self._pieces[token] if token < len(self._pieces) else b""

    def sentinel_index(self, token: int) -> int | None:
        """i for the sentinel `<extra_id_i>`, None for any other token."""
        index = self.size - 1 - token
        return index if 0 <= index < self.extra_ids else None

    def _decode_run(self, tokens: list[int]) -> str:
        return b"".join(self._pieces[t] for t in tokens if t < len(self._pieces)).decode(
            "utf-8", errors="replace"
        )


def load_vocabulary(config: Any) -> Vocabulary:
    """The vocabulary that a configuration's `vocabulary` and `extra_ids` name.

    Raises:
      DataError: a SentencePiece file that is missing, is none, or has other special ids.
    """
    return _load_vocabulary(config.vocabulary, config.extra_ids)


@functools.cache
def _load_vocabulary(name: str, extra_ids: int) -> Vocabulary:
    if name == "bytes":
        pieces = [b""] * 3 + [bytes([i]) for i in range(256)]
        return Vocabulary(seqio.ByteVocabulary(extra_ids), b"bytes", pieces)
    path = epath.Path(name)
    if not path.is_file():
        raise DataError(
            f"data.vocabulary = {name!r}: no such file; must be 'bytes' or the path of a "
            "SentencePiece .model, which `python -m spade_jax.data.train_vocabulary` makes"
        )
    model = path.read_bytes()
    vocabulary = seqio.SentencePieceVocabulary(name, extra_ids)
    try:
        tokenizer = vocabulary.tokenizer
    except Exception as error:  # SentencePiece and protobuf each raise kinds of their own.
        raise DataError(f"data.vocabulary = {name!r}: is not a SentencePiece model") from error
    if tokenizer.pad_id() != PAD_ID or tokenizer.eos_id() < 0:
        raise DataError(
            f"data.vocabulary = {name!r}: has pad {tokenizer.pad_id()} and eos "
            f"{tokenizer.eos_id()}; must have been trained with --pad_id=0 --eos_id=1"
        )
    pieces = [_piece_bytes(tokenizer, i) for i in range(tokenizer.GetPieceSize() - extra_ids)]
    return Vocabulary(vocabulary, model, pieces)


def _piece_bytes(tokenizer, token: int) -> bytes:
    """The text one SentencePiece token stands for; its "▁" is a space."""
    if tokenizer.IsControl(token) or tokenizer.IsUnknown(token) or tokenizer.IsUnused(token):
        return b""
    piece = tokenizer.IdToPiece(token)
    if tokenizer.IsByte(token):
        return bytes([int(piece[1:-1], 16)])
    return piece.replace("▁", " ").encode("utf-8")
