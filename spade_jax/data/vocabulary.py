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


class Vocabulary:
    """Tokens and their meaning, with `extra_ids` sentinels counting down from the last id.

    Attributes:
      seqio: the seqio vocabulary underneath.
      size: v, sentinels included.
      eos_id: ends inputs and targets. Padding, and the start of decoder inputs, is 0.
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
        self.extra_ids: int = seqio_vocabulary.extra_ids
        self.digest = hashlib.sha256(definition + b"%d" % self.extra_ids).hexdigest()
        self.token_bytes = np.zeros(self.size, np.int32)
        self.token_bytes[: len(pieces)] = [len(piece) for piece in pieces]
        self._pieces = pieces

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without EOS."""
        return list(self.seqio.encode(text))

    def encode_masked(self, text: str) -> list[int]:
        """Ids of `text` without EOS, where `<extra_id_i>` is sentinel i: what `decode` writes.

        Raises:
          DataError: a sentinel that the vocabulary does not have.
        """
        # re.split puts the sentinels' numbers at odd places.
        ids: list[int] = []
        for place, part in enumerate(re.split(r"<extra_id_(\d+)>", text)):
            if place % 2 == 0:
                ids += self.encode(part)
                continue
            if int(part) >= self.extra_ids:
                raise DataError(
                    f"<extra_id_{part}>: no such sentinel; the vocabulary has "
                    f"<extra_id_0> to <extra_id_{self.extra_ids - 1}>"
                )
            ids.append(self.size - 1 - int(part))
        return ids

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
