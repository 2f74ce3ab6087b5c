"""Small SentencePiece vocabularies, with and without the bytes of what they lack."""

import io
from collections.abc import Iterable
from pathlib import Path

import sentencepiece


def train_pieces(path: Path, text: Iterable[str], size: int, *, byte_fallback: bool) -> Path:
    """A vocabulary that knows the characters of `text`, and normalises as T5's does."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text),
        model_writer=written,
        vocab_size=size,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        character_coverage=1.0,
        hard_vocab_limit=False,
        byte_fallback=byte_fallback,
        minloglevel=2,
    )
    path.write_bytes(written.getvalue())
    return path
